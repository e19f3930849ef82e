// runc-bounded is runc for hosts that cannot grant everything a container asks for. Before it becomes runc, it takes
// out of the container's specification: capabilities beyond the host's bounding set and, without CAP_SYS_RESOURCE,
// resource limits and OOM scores below zero. On a host that can grant all of it, nothing changes.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Capabilities by their number, as in linux/capability.h.
var capabilities = []string{
	"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
	"LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
	"SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
	"SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
	"MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
	"CHECKPOINT_RESTORE",
}

func boundingSet() (uint64, error) {
	status, err := os.Open("/proc/self/status")
	if err != nil {
		return 0, err
	}
	defer status.Close()
	for lines := bufio.NewScanner(status); lines.Scan(); {
		if value, ok := strings.CutPrefix(lines.Text(), "CapBnd:"); ok {
			return strconv.ParseUint(strings.TrimSpace(value), 16, 64)
		}
	}
	return 0, fmt.Errorf("/proc/self/status has no line CapBnd")
}

func missing() ([]string, error) {
	set, err := boundingSet()
	if err != nil {
		return nil, err
	}
	var out []string
	for number, name := range capabilities {
		if set&(1<<number) == 0 {
			out = append(out, "CAP_"+name)
		}
	}
	return out, nil
}

// bound rewrites the specification of a container, or of a process that joins one.
func bound(path string, without []string) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var spec map[string]any
	if err := json.Unmarshal(text, &spec); err != nil {
		return err
	}
	process, ok := spec["process"].(map[string]any)
	if !ok {
		process = spec
	}
	if sets, ok := process["capabilities"].(map[string]any); ok {
		for name, set := range sets {
			list, _ := set.([]any)
			sets[name] = slices.DeleteFunc(list, func(c any) bool {
				text, _ := c.(string)
				return slices.Contains(without, text)
			})
		}
	}
	if slices.Contains(without, "CAP_SYS_RESOURCE") {
		delete(process, "rlimits")
		if score, ok := process["oomScoreAdj"].(float64); ok && score < 0 {
			process["oomScoreAdj"] = 0
		}
	}
	if text, err = json.Marshal(spec); err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

// specification is the file that this call of runc reads, or "".
func specification(args []string) string {
	verb, bundle, process := "", ".", ""
	for i, arg := range args {
		next := func() string {
			if i+1 < len(args) {
				return args[i+1]
			}
			return ""
		}
		switch arg {
		case "create", "run", "exec":
			if verb == "" {
				verb = arg
			}
		case "--bundle", "-b":
			bundle = next()
		case "--process", "-p":
			process = next()
		}
	}
	switch verb {
	case "create", "run":
		return filepath.Join(bundle, "config.json")
	case "exec":
		return process
	}
	return ""
}

func main() {
	without, err := missing()
	if path := specification(os.Args[1:]); err == nil && len(without) > 0 && path != "" {
		err = bound(path, without)
	}
	if err == nil {
		os.Args[0] = "runc"
		err = syscall.Exec("/usr/sbin/runc", os.Args, os.Environ())
	}
	fmt.Fprintln(os.Stderr, "runc-bounded:", err)
	os.Exit(1)
}
