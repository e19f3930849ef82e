use std::fs;

use tempfile::TempDir;
use vectorizer_api::replication::Configure;

use super::*;

/// A directory with a configuration file, and what else a start would see.
struct Start {
    dir: TempDir,
    environment: BTreeMap<String, String>,
    flags: Flags,
}

impl Start {
    fn with(yaml: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.yaml");
        fs::write(&config, yaml).unwrap();
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        let flags = Flags {
            config: Some(config),
            data_dir: Some(data.to_str().unwrap().to_owned()),
            ..Flags::default()
        };
        Start {
            dir,
            environment: BTreeMap::new(),
            flags,
        }
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.insert(name.to_owned(), value.to_owned());
        self
    }

    fn set(mut self, pair: &str) -> Self {
        self.flags.set.push(pair.to_owned());
        self
    }

    fn load(&self) -> Result<Config, ConfigError> {
        Config::load(&self.flags, &self.environment, "a-host")
    }

    fn good(&self) -> Config {
        self.load().unwrap()
    }

    fn refused(&self) -> String {
        self.load().unwrap_err().to_string()
    }
}

const MASTER: &str = r#"
replication:
  enabled: true
  role: "master"
  bind_address: "0.0.0.0:7001"
  heartbeat_interval_secs: 5
  replica_timeout_secs: 30
  log_size: 1000000
"#;

const REPLICA: &str = r#"
replication:
  enabled: true
  role: "replica"
  master_address: "192.168.1.10:7001"
  reconnect_interval_secs: 5
"#;

const KUBERNETES: &str = "
server: { bind_address: 0.0.0.0:15002 }
replication: { enabled: true, bind_address: 0.0.0.0:7001 }
kubernetes: { namespace: default, lease: vc }
";

#[test]
fn the_masters_sample_of_the_specification_is_read_as_it_stands() {
    let replication = Start::with(MASTER).good().replication;
    assert!(replication.enabled);
    assert_eq!(replication.role, Some(StaticRole::Master));
    assert_eq!(replication.bind_address.to_string(), "0.0.0.0:7001");
    assert_eq!(replication.heartbeat_interval, Duration::from_secs(5));
    assert_eq!(replication.replica_timeout, Duration::from_secs(30));
    assert_eq!(replication.log_size, 1_000_000);
}

#[test]
fn the_replicas_sample_of_the_specification_is_read_as_it_stands() {
    let replication = Start::with(REPLICA).good().replication;
    assert!(replication.enabled);
    assert_eq!(replication.role, Some(StaticRole::Replica));
    assert_eq!(
        replication.master_address.unwrap().to_string(),
        "192.168.1.10:7001"
    );
    assert_eq!(replication.reconnect_interval, Duration::from_secs(5));
}

#[test]
fn the_masters_variables_of_the_specification_suffice() {
    let replication = Start::with("")
        .env("REPLICATION_ROLE", "master")
        .env("REPLICATION_BIND_ADDRESS", "127.0.0.1:7101")
        .env("REPLICATION_HEARTBEAT_INTERVAL", "7")
        .env("REPLICATION_LOG_SIZE", "5000")
        .env("REPLICATION_REPLICA_TIMEOUT", "70")
        .good()
        .replication;
    assert!(replication.enabled);
    assert_eq!(replication.role, Some(StaticRole::Master));
    assert_eq!(replication.bind_address.to_string(), "127.0.0.1:7101");
    assert_eq!(replication.heartbeat_interval, Duration::from_secs(7));
    assert_eq!(replication.log_size, 5000);
    assert_eq!(replication.replica_timeout, Duration::from_secs(70));
}

#[test]
fn the_replicas_variables_of_the_specification_suffice() {
    let replication = Start::with("")
        .env("REPLICATION_ROLE", "replica")
        .env("REPLICATION_MASTER_ADDRESS", "192.168.1.10:7001")
        .env("REPLICATION_RECONNECT_INTERVAL", "9")
        .good()
        .replication;
    assert!(replication.enabled);
    assert_eq!(replication.role, Some(StaticRole::Replica));
    assert_eq!(
        replication.master_address.unwrap().to_string(),
        "192.168.1.10:7001"
    );
    assert_eq!(replication.reconnect_interval, Duration::from_secs(9));
}

#[test]
fn the_nodes_own_variables_are_read() {
    let start = Start::with("")
        .env("VECTORIZER_NODE_NAME", "vc-0")
        .env("VECTORIZER_HTTP_ADDRESS", "127.0.0.1:1")
        .env("VECTORIZER_ADVERTISED_HOST", "10.0.0.7")
        .env("VECTORIZER_LOG", "debug")
        .env("VECTORIZER_LOG_FORMAT", "json");
    let config = start.good();
    assert_eq!(config.node.name, "vc-0");
    assert_eq!(config.server.bind_address.to_string(), "127.0.0.1:1");
    assert_eq!(config.node.advertised_host.as_deref(), Some("10.0.0.7"));
    assert_eq!(config.log.filter, "debug");
    assert_eq!(config.log.format, LogFormat::Json);

    let mut start = Start::with("");
    start.flags.data_dir = None;
    let directory = start.dir.path().join("elsewhere");
    let start = start.env("VECTORIZER_DATA_DIR", directory.to_str().unwrap());
    assert_eq!(start.good().node.data_dir, directory);
}

#[test]
fn without_a_section_there_is_no_replication_and_everything_has_a_default() {
    let config = Start::with("").good();
    assert!(!config.replication.enabled);
    assert_eq!(config.replication.role, None);
    assert_eq!(config.replication.bind_address.to_string(), "[::]:7001");
    assert_eq!(
        config.replication.heartbeat_interval,
        Duration::from_secs(5)
    );
    assert_eq!(config.replication.replica_timeout, Duration::from_secs(30));
    assert_eq!(config.replication.log_size, 1_000_000);
    assert_eq!(config.replication.log_max_bytes, None);
    assert_eq!(
        config.replication.reconnect_interval,
        Duration::from_secs(5)
    );
    assert_eq!(config.server.bind_address.to_string(), "[::]:15002");
    assert_eq!(config.server.ops_bind_address, None);
    assert_eq!(config.server.max_connections, 2048);
    assert_eq!(config.server.max_body_bytes, 64 << 20);
    assert_eq!(config.server.max_concurrent_requests, 512);
    assert_eq!(config.server.request_memory_bytes, 1 << 30);
    assert_eq!(config.node.name, "a-host");
    assert_eq!(config.storage.durability, Durability::Always);
    assert_eq!(config.storage.memory_max_bytes, None);
    assert_eq!(config.kubernetes, None);
}

#[test]
fn environment_overrides_the_file_and_flags_override_both() {
    let start = Start::with("server: { bind_address: 1.1.1.1:1 }\nnode: { name: from-file }")
        .env("VECTORIZER_HTTP_ADDRESS", "2.2.2.2:2")
        .env("VECTORIZER_NODE_NAME", "from-environment");
    let mut start = start;
    start.flags.name = Some("from-flag".to_owned());
    let config = start.good();
    assert_eq!(config.server.bind_address.to_string(), "2.2.2.2:2");
    assert_eq!(config.node.name, "from-flag");

    let config = Start::with(MASTER)
        .env("REPLICATION_LOG_SIZE", "10")
        .set("replication.log_size=20")
        .set("replication.log_max_bytes=1048576")
        .set("storage.memory_max_bytes=1073741824")
        .good();
    assert_eq!(config.storage.memory_max_bytes, Some(1 << 30));
    assert_eq!(config.replication.log_size, 20);
    assert_eq!(config.replication.log_max_bytes, Some(1 << 20));
}

#[test]
fn the_role_from_the_environment_switches_replication_on_even_against_the_file() {
    let config = Start::with("replication: { enabled: false }")
        .env("REPLICATION_ROLE", "master")
        .good();
    assert!(config.replication.enabled);
    let config = Start::with(&MASTER.replace("true", "false")).good();
    assert!(!config.replication.enabled);
    assert_eq!(config.replication.role, None);
}

#[test]
fn every_unknown_section_and_key_is_refused_with_its_path_and_the_allowed_ones() {
    let refused = Start::with(
        "replicaton: { enabled: true }\nserver: { bind_adress: 0.0.0.0:1, colour: red }\nnode: 5\n",
    )
    .refused();
    for part in [
        "config.yaml: replicaton: unknown section (did you mean `replication`?); allowed: server, node, replication, storage, kubernetes, log",
        "config.yaml: server.bind_adress: unknown key (did you mean `bind_address`?)",
        "config.yaml: server.colour: unknown key; allowed: bind_address, ops_bind_address, admin_key_file",
        "config.yaml: node: is a number; expected the keys name, data_dir",
    ] {
        assert!(refused.contains(part), "{part}\nnot in\n{refused}");
    }
}

#[test]
fn every_bad_value_is_refused_with_its_path_and_what_would_be_right() {
    let table = [
        ("replication.enabled=yes", "expected `true` or `false`"),
        (
            "replication.role=primary",
            "`primary` is not allowed: expected `master` or `replica`",
        ),
        ("replication.role=Master", "expected `master` or `replica`"),
        ("replication.bind_address=7001", "expected <host>:<port>"),
        (
            "replication.master_address=10.0.0.1",
            "expected <host>:<port>",
        ),
        ("replication.master_address=10.0.0.1:0", "expected the port"),
        (
            "replication.heartbeat_interval_secs=0",
            "a whole number from 1 to 3600",
        ),
        (
            "replication.heartbeat_interval_secs=1.5",
            "a whole number from 1 to 3600",
        ),
        (
            "replication.replica_timeout_secs=0",
            "a whole number from 1 to 86400",
        ),
        (
            "replication.replica_timeout_secs=5",
            "is not above replication.heartbeat_interval_secs",
        ),
        (
            "replication.log_size=-1",
            "a whole number from 1 to 1000000000",
        ),
        (
            "replication.log_size=many",
            "a whole number from 1 to 1000000000",
        ),
        (
            "replication.reconnect_interval_secs=4000",
            "a whole number from 1 to 3600",
        ),
        (
            "replication.token_file=/nonexistent/token",
            "cannot read /nonexistent/token",
        ),
        (
            "replication.master_url=10.0.0.1:15002",
            "expected http://<host>:<port>",
        ),
        (
            "replication.master_url=https://h:1",
            "expected http://<host>:<port>",
        ),
        ("server.bind_address=localhost", "expected <host>:<port>"),
        (
            "server.admin_key_file=/nonexistent/key",
            "cannot read /nonexistent/key",
        ),
        (
            "server.read_key_file=/nonexistent/key",
            "cannot read /nonexistent/key",
        ),
        (
            "server.control_token_file=/nonexistent/key",
            "cannot read /nonexistent/key",
        ),
        (
            "server.max_body_bytes=1",
            "a whole number from 1024 to 1073741824",
        ),
        (
            "server.max_concurrent_requests=0",
            "a whole number from 1 to 100000",
        ),
        ("server.ops_bind_address=15003", "expected <host>:<port>"),
        (
            "server.max_connections=1",
            "a whole number from 16 to 1000000",
        ),
        ("server.cors_allowed_origins=all", "expected http(s)://"),
        (
            "server.request_memory_bytes=1",
            "a whole number from 8388608 to 1099511627776",
        ),
        (
            "server.request_timeout_secs=0",
            "a whole number from 1 to 3600",
        ),
        (
            "server.shutdown_grace_secs=-1",
            "a whole number from 0 to 3600",
        ),
        ("node.name=a b", "expected 1 to 253 of A-Z a-z 0-9 - _"),
        (
            "node.advertised_host=h:1",
            "expected a name or an IP address, without a port",
        ),
        ("replication.write_acks=256", "a whole number from 0 to 255"),
        (
            "replication.write_level=sent",
            "expected `durable` or `applied`",
        ),
        (
            "replication.write_timeout_secs=0",
            "a whole number from 1 to 3600",
        ),
        (
            "storage.durability=never",
            "expected `always` or `interval` or `os`",
        ),
        ("storage.segment_bytes=1", "a whole number from 4096"),
        (
            "storage.memory_max_bytes=1048576",
            "a whole number from 33554432",
        ),
        (
            "replication.log_max_bytes=1048575",
            "a whole number from 1048576",
        ),
        ("log.filter==loud=", "is not a filter, such as info"),
        ("log.format=xml", "expected `text` or `json`"),
    ];
    let mut said: Vec<&str> = table
        .iter()
        .map(|(pair, _)| pair.split_once('=').unwrap().0)
        .collect();
    said.dedup();
    // A path can be anything, and the section kubernetes has a test of its own.
    let all = KEYS
        .iter()
        .map(|key| key.path)
        .filter(|path| *path != "node.data_dir" && !path.starts_with("kubernetes"));
    for path in all {
        assert!(said.contains(&path), "no bad value of {path} is tried");
    }
    for (pair, expected) in table {
        let refused = Start::with("").set(pair).refused();
        let key = pair.split_once('=').unwrap().0;
        assert!(
            refused.contains(key) && refused.contains(expected),
            "{pair}: {refused}"
        );
    }
}

#[test]
fn a_bad_variable_is_named_as_such() {
    for (name, value) in [
        ("REPLICATION_ROLE", "slave"),
        ("REPLICATION_BIND_ADDRESS", "x"),
        ("REPLICATION_HEARTBEAT_INTERVAL", "5s"),
        ("REPLICATION_LOG_SIZE", "1e6"),
        ("REPLICATION_MASTER_ADDRESS", "x"),
        ("REPLICATION_RECONNECT_INTERVAL", "0"),
        ("REPLICATION_REPLICA_TIMEOUT", "0"),
        ("VECTORIZER_HTTP_ADDRESS", "x"),
        ("VECTORIZER_NODE_NAME", "/"),
        ("VECTORIZER_ADVERTISED_HOST", "/"),
        ("VECTORIZER_LOG", "=loud="),
        ("VECTORIZER_LOG_FORMAT", "xml"),
    ] {
        let refused = Start::with("").env(name, value).refused();
        let place = format!("environment variable {name}: ");
        assert!(refused.contains(&place), "{name}: {refused}");
    }
}

#[test]
fn origins_of_pages_are_separated_by_commas() {
    let origins = |text: &str| {
        let yaml = format!("server: {{ cors_allowed_origins: '{text}' }}");
        Start::with(&yaml)
            .load()
            .map(|c| c.server.cors_allowed_origins)
    };
    assert_eq!(Start::with("").good().server.cors_allowed_origins, None);
    assert_eq!(origins("*").unwrap(), Some(Origins::Any));
    let two = vec![
        "https://app.example.com".to_owned(),
        "http://localhost:3000".to_owned(),
    ];
    let read = origins("https://App.example.com, http://localhost:3000").unwrap();
    assert_eq!(read, Some(Origins::These(two)));
    for bad in [
        "app.example.com",
        "https://a/b",
        "https://",
        "https://a,",
        "ftp://a",
        "null",
    ] {
        let refused = origins(bad).unwrap_err().to_string();
        assert!(refused.contains("is not an origin"), "{bad}: {refused}");
    }
}

#[test]
fn every_variable_that_is_read_means_something() {
    let variables = KEYS.iter().filter_map(|key| key.env);
    let environment: BTreeMap<_, _> = variables.map(|v| (v.to_owned(), "x".to_owned())).collect();
    for read in [
        "VECTORIZER_LOG_FORMAT",
        "VECTORIZER_LOG",
        "REPLICATION_ROLE",
    ] {
        assert!(environment.contains_key(read), "{read}");
    }
    assert_eq!(suspicious(&environment), Vec::<String>::new());
    // What the operator sets in every pod.
    let warnings = Start::with("")
        .env("VECTORIZER_NODE_NAME", "vc-0")
        .env("VECTORIZER_ADVERTISED_HOST", "10.0.0.7")
        .env("VECTORIZER_LOG_FORMAT", "json")
        .good()
        .warnings;
    let about = warnings.iter().filter(|w| w.contains("variable"));
    assert_eq!(about.count(), 0, "{warnings:?}");
}

#[test]
fn what_is_logged_can_stand_in_the_file_too() {
    let config = Start::with("log: { filter: warn, format: json }").good();
    assert_eq!(config.log.filter, "warn");
    assert_eq!(config.log.format, LogFormat::Json);
    let mut start = Start::with("log: { filter: warn }").env("VECTORIZER_LOG", "debug");
    start.flags.log = Some("trace".to_owned());
    assert_eq!(start.good().log.filter, "trace");
    let refused = Start::with("log: { format: xml }").refused();
    assert!(
        refused.contains("log.format: `xml` is not allowed"),
        "{refused}"
    );
}

#[test]
fn a_misspelt_variable_is_pointed_out_but_not_refused() {
    let warnings = Start::with("")
        .env("REPLICATION_MASTER_ADRESS", "x")
        .env("VECTORIZER_SERVICE_HOST", "10.96.0.1")
        .good()
        .warnings;
    let misspelt: Vec<_> = warnings
        .iter()
        .filter(|w| w.contains("did you mean"))
        .collect();
    assert_eq!(misspelt.len(), 1);
    assert!(misspelt[0].contains("REPLICATION_MASTER_ADDRESS"));
}

#[test]
fn what_contradicts_itself_is_refused() {
    let refused = Start::with("replication: { enabled: true }").refused();
    assert!(
        refused.contains("replication.role: is missing"),
        "{refused}"
    );
    let refused = Start::with("replication: { enabled: true, role: replica }").refused();
    assert!(
        refused.contains("replication.master_address: is missing"),
        "{refused}"
    );
    let refused = Start::with("- a list").refused();
    assert!(
        refused.contains("config.yaml: the file holds a list"),
        "{refused}"
    );
    let refused = Start::with("a: [").refused();
    assert!(refused.contains("config.yaml: not YAML"), "{refused}");
    let refused = Start::with("server: { bind_address: [1] }").refused();
    assert!(
        refused.contains("server.bind_address: is a list"),
        "{refused}"
    );
    let mut start = Start::with("");
    start.flags.config = Some(PathBuf::from("/nonexistent.yaml"));
    assert!(
        start
            .refused()
            .contains("/nonexistent.yaml: cannot be read")
    );
}

#[test]
fn under_kubernetes_nobody_else_gives_a_role() {
    let config = Start::with(KUBERNETES).good();
    let kubernetes = config.kubernetes.unwrap();
    assert_eq!(kubernetes.pod, "a-host");
    assert!(config.replication.enabled);
    assert_eq!(config.replication.role, None);
    for (start, expected) in [
        (
            Start::with(KUBERNETES).env("REPLICATION_ROLE", "master"),
            "REPLICATION_ROLE: must be absent",
        ),
        (
            Start::with(KUBERNETES).set("replication.master_address=h:1"),
            "replication.master_address: must be absent",
        ),
        (
            Start::with(KUBERNETES).set("replication.enabled=false"),
            "cannot be false",
        ),
        (
            Start::with("kubernetes: { lease: vc }"),
            "kubernetes.namespace: is missing",
        ),
        (
            Start::with("kubernetes: { namespace: d }"),
            "kubernetes.lease: is missing",
        ),
        (
            Start::with(KUBERNETES).set("kubernetes.pod=a/b"),
            "kubernetes.pod: `a/b` is not a name",
        ),
    ] {
        let refused = start.refused();
        assert!(refused.contains(expected), "{expected}\nnot in\n{refused}");
    }
}

#[test]
fn without_keys_the_node_starts_and_warns() {
    let warnings = Start::with(MASTER).good().warnings;
    assert!(
        warnings
            .iter()
            .any(|w| w.contains("server.admin_key_file is not set"))
    );
    assert!(
        warnings
            .iter()
            .any(|w| w.contains("replication.token_file is not set"))
    );

    let start = Start::with("");
    let key = start.dir.path().join("key");
    fs::write(&key, "k").unwrap();
    let key = key.display();
    let start = start.set(&format!("server.admin_key_file={key}"));
    assert_eq!(start.good().warnings, Vec::<String>::new());
    let start = Start::with("").set(&format!("server.read_key_file={key}"));
    assert!(start.refused().contains("without server.admin_key_file"));
}

fn wish(role: &str) -> Configure {
    Configure {
        role: role.to_owned(),
        bind_address: None,
        master_address: None,
        heartbeat_interval: None,
        log_size: None,
        reconnect_interval: None,
    }
}

#[test]
fn what_was_configured_is_in_force_at_the_next_start() {
    let start = Start::with(MASTER);
    let request = Configure {
        master_address: Some("10.0.0.9:7001".to_owned()),
        heartbeat_interval: Some(2),
        log_size: Some(77),
        reconnect_interval: Some(3),
        ..wish("replica")
    };
    start.good().check(&request).unwrap().store().unwrap();
    let replication = start.good().replication;
    assert_eq!(replication.role, Some(StaticRole::Replica));
    assert_eq!(
        replication.master_address.unwrap().to_string(),
        "10.0.0.9:7001"
    );
    assert_eq!(replication.heartbeat_interval, Duration::from_secs(2));
    assert_eq!(replication.log_size, 77);
    assert_eq!(replication.reconnect_interval, Duration::from_secs(3));
    assert_eq!(
        replication.replica_timeout,
        Duration::from_secs(30),
        "the file's"
    );

    let request = Configure {
        bind_address: Some("0.0.0.0:7777".to_owned()),
        ..wish("master")
    };
    start.good().check(&request).unwrap().store().unwrap();
    let replication = start.good().replication;
    assert_eq!(replication.role, Some(StaticRole::Master));
    assert_eq!(replication.bind_address.to_string(), "0.0.0.0:7777");
    assert_eq!(replication.master_address, None, "of the former role");
    assert_eq!(
        replication.log_size, 1_000_000,
        "each request stands for itself"
    );
}

#[test]
fn environment_and_flags_stay_above_what_was_configured_and_it_says_so() {
    let start = Start::with(MASTER).env("REPLICATION_LOG_SIZE", "5");
    let request = Configure {
        log_size: Some(9),
        ..wish("master")
    };
    let wish = start.good().check(&request).unwrap();
    assert_eq!(
        wish.overridden,
        [
            "replication.log_size stays in force: the environment variable REPLICATION_LOG_SIZE sets it"
        ]
    );
    wish.store().unwrap();
    assert_eq!(start.good().replication.log_size, 5);
}

#[test]
fn a_bad_wish_is_refused_field_by_field_and_stores_nothing() {
    let start = Start::with(MASTER).env("REPLICATION_LOG_SIZE", "5");
    let config = start.good();
    for (request, field, expected) in [
        (wish("leader"), "role", "expected `master` or `replica`"),
        (wish("replica"), "master_address", "is missing"),
        (
            Configure {
                master_address: Some("h:1".into()),
                ..wish("master")
            },
            "master_address",
            "must be absent",
        ),
        (
            Configure {
                master_address: Some("h".into()),
                ..wish("replica")
            },
            "master_address",
            "expected <host>:<port>",
        ),
        (
            Configure {
                bind_address: Some("x".into()),
                ..wish("master")
            },
            "bind_address",
            "<host>:<port>",
        ),
        (
            Configure {
                heartbeat_interval: Some(0),
                ..wish("master")
            },
            "heartbeat_interval",
            "from 1 to 3600",
        ),
        (
            Configure {
                log_size: Some(0),
                ..wish("master")
            },
            "log_size",
            "from 1 to 1000000000",
        ),
        (
            Configure {
                reconnect_interval: Some(0),
                ..wish("master")
            },
            "reconnect_interval",
            "from 1 to 3600",
        ),
    ] {
        let error = config.check(&request).unwrap_err();
        let problem = error.problems.iter().find(|p| p.place == field);
        let problem = problem.unwrap_or_else(|| panic!("{field}: {error}"));
        assert!(problem.message.contains(expected), "{field}: {error}");
    }
    assert!(!config.node.data_dir.join("replication.yaml").exists());
}

#[test]
fn a_replica_keeps_its_master_when_the_wish_names_none() {
    let start = Start::with(REPLICA);
    let request = Configure {
        log_size: Some(50),
        ..wish("replica")
    };
    start.good().check(&request).unwrap().store().unwrap();
    let replication = start.good().replication;
    assert_eq!(
        replication.master_address.unwrap().to_string(),
        "192.168.1.10:7001"
    );
    assert_eq!(replication.log_size, 50);
}

#[test]
fn a_stored_wish_that_somebody_broke_is_refused_with_its_path() {
    let start = Start::with(MASTER);
    let path = start.good().node.data_dir.join("replication.yaml");
    fs::write(&path, "replication: { role: king }").unwrap();
    let refused = start.refused();
    assert!(
        refused.contains("replication.yaml: replication.role: `king`"),
        "{refused}"
    );
}
