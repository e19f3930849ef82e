#!/bin/bash
# The Python client: `client.sh lint` for its format, lints and types, `client.sh test` for its tests against the nodes
# that are built, which ends with a line as cargo's own. Without either, both. Tools come from the package registry once,
# into target/client.
set -euo pipefail
. "$(dirname "$0")/steps.sh"

python() { # a Python that can make environments
  python3 -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && return
  need python3-venv python3-venv || true
  python3 -c 'import sys, ensurepip; sys.exit(sys.version_info < (3, 11))' \
    || { echo 'the client needs Python 3.11 or later, with ensurepip (python3-venv)' >&2; return 1; }
}

tools=$PWD/target/client
wanted=clients/python/tests/requirements.txt
if ! cmp -s "$wanted" "$tools/installed"; then
  python
  rm -rf "$tools"
  python3 -m venv "$tools"
  "$tools/bin/pip" install --quiet --disable-pip-version-check -r "$wanted"
  cp "$wanted" "$tools/installed"
fi
need openssl openssl
cd clients/python

lint() {
  "$tools/bin/ruff" format --check .
  "$tools/bin/ruff" check .
  "$tools/bin/mypy"
}

tests() {
  local log=$tools/tests.log status=0 summary
  "$tools/bin/python" -m pytest -q -p no:cacheprovider "$@" | tee "$log" || status=$?
  summary=$(tail -n 1 "$log")
  count() { sed -n "s/.*\b\([0-9][0-9]*\) $1.*/\1/p" <<<"$summary" | grep . || echo 0; }
  printf 'test result: %s. %d passed; %d failed; %d ignored\n' "$([ $status = 0 ] && echo ok || echo FAILED)" \
    "$(count passed)" $(($(count failed) + $(count error))) "$(count skipped)"
  return $status
}

case ${1:-} in
  lint) lint ;;
  test) shift; tests "$@" ;;
  *) lint; tests ;;
esac
