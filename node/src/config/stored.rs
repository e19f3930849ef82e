//! `replication.yaml` in the data directory: what `POST /replication/configure` was asked for, in force from the next
//! start on (specification, "Configure Replication").
//!
//! It has the form of the `replication:` section. Role and addresses take the place of those of `--config` as a whole:
//! a node made a master does not keep its former master's address.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde_yaml::{Mapping, Value};
use vectorizer_api::replication::Configure;

use super::layers::{Layers, Problem};
use super::{Config, ConfigError};

const FILE: &str = "replication.yaml";
const HEADER: &str = "\
# Written by POST /replication/configure. These keys take the place of those of the file given with --config;
# environment and flags still come first. Remove this file to go back.
";
/// Keys that belong to a role: a stored role replaces all of them. Where the node listens is not among them.
const OF_ROLE: [&str; 4] = [
    "replication.enabled",
    "replication.role",
    "replication.master_address",
    "replication.master_url",
];
/// Fields of the request and the keys that they set.
const FIELDS: [(&str, &str); 6] = [
    ("role", "replication.role"),
    ("bind_address", "replication.bind_address"),
    ("master_address", "replication.master_address"),
    ("heartbeat_interval", "replication.heartbeat_interval_secs"),
    ("log_size", "replication.log_size"),
    ("reconnect_interval", "replication.reconnect_interval_secs"),
];

/// A wish that has been checked and is ready to be stored.
#[derive(Clone, PartialEq, Debug)]
pub struct Wish {
    layer: Layers,
    file: PathBuf,
    /// Things in the environment or in flags that will override it.
    pub overridden: Vec<String>,
}

/// Where it is stored.
pub(super) fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE)
}

/// What is stored; nothing when there is no file.
pub(super) fn read(data_dir: &Path, problems: &mut Vec<Problem>) -> Layers {
    let path = path(data_dir);
    match fs::read_to_string(&path) {
        Ok(text) => Layers::yaml(&text, &path, problems),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Layers::default(),
        Err(error) => {
            problems.push(Problem {
                place: path.display().to_string(),
                key: String::new(),
                message: format!("cannot be read: {error}"),
            });
            Layers::default()
        }
    }
}

/// Lays what is stored over the file's values.
pub(super) fn lay_over(layers: &mut Layers, stored: &Layers) {
    if stored.get("replication.role").is_some() {
        for key in OF_ROLE {
            layers.remove(key);
        }
    }
    layers.overlay(stored.clone());
}

impl Config {
    /// Checks a wish of `POST /replication/configure` as the next start would, together with everything else that is
    /// configured. Fields of the request are named as the request names them. Changes nothing.
    pub fn check(&self, request: &Configure) -> Result<Wish, ConfigError> {
        let mut layer = Layers::default();
        layer.set("replication.enabled", "true", "enabled");
        layer.set("replication.role", &request.role, "role");
        let number = |n: Option<u64>| n.map(|n| n.to_string());
        for (field, key, value) in [
            (
                "bind_address",
                "replication.bind_address",
                request.bind_address.clone(),
            ),
            (
                "master_address",
                "replication.master_address",
                request.master_address.clone(),
            ),
            (
                "heartbeat_interval",
                "replication.heartbeat_interval_secs",
                number(request.heartbeat_interval),
            ),
            ("log_size", "replication.log_size", number(request.log_size)),
            (
                "reconnect_interval",
                "replication.reconnect_interval_secs",
                number(request.reconnect_interval),
            ),
        ] {
            if let Some(value) = value {
                layer.set(key, value, field);
            }
        }
        let mut problems = Vec::new();
        if request.role == "replica" && request.master_address.is_none() {
            // "No (replica)" in the specification: the master followed so far stays the master.
            match self.replication.master_address.as_ref() {
                Some(known) => layer.set("replication.master_address", known.to_string(), "master_address"),
                None => problems.push(Problem {
                    place: "master_address".to_owned(),
                    key: "replication.master_address".to_owned(),
                    message: "is missing: expected <host>:<port> of the master, as the role is replica and this node follows none so far".to_owned(),
                }),
            }
        }
        if request.role == "master" && request.master_address.is_some() {
            problems.push(Problem {
                place: "master_address".to_owned(),
                key: "replication.master_address".to_owned(),
                message: "must be absent: the role is master".to_owned(),
            });
        }
        if let Err(error) = self.next_start(&layer, &problems) {
            return Err(rename(error));
        }
        let overridden = self.fixed.fixed().filter_map(|(key, setting)| {
            layer.get(key)?;
            Some(format!(
                "{} stays in force: the {} sets it",
                key, setting.place
            ))
        });
        Ok(Wish {
            overridden: overridden.collect(),
            layer,
            file: path(&self.node.data_dir),
        })
    }

    /// What the next start would say. Only the wish's own values count: what comes from environment and flags was
    /// accepted by this start.
    fn next_start(&self, layer: &Layers, problems: &[Problem]) -> Result<(), ConfigError> {
        let mut problems = problems.to_vec();
        if problems.is_empty() {
            let assembled = Config::assemble(
                self.file.clone(),
                layer,
                self.fixed.clone(),
                &self.node.name,
                Vec::new(),
            );
            let alone = Config::assemble(
                self.file.clone(),
                layer,
                Layers::default(),
                &self.node.name,
                Vec::new(),
            );
            for error in [assembled.err(), alone.err()].into_iter().flatten() {
                let new = error.problems.into_iter().filter(|p| !problems.contains(p));
                let new: Vec<_> = new.collect();
                problems.extend(new);
            }
        }
        if problems.is_empty() {
            Ok(())
        } else {
            Err(ConfigError { problems })
        }
    }
}

/// Names a key as the request does, where it is one of the request's.
fn rename(mut error: ConfigError) -> ConfigError {
    for problem in &mut error.problems {
        if let Some((field, _)) = FIELDS.iter().find(|(_, key)| *key == problem.key) {
            problem.place = (*field).to_owned();
        }
    }
    error
}

impl Wish {
    /// Stores it: durable, and whole or not at all.
    pub fn store(&self) -> io::Result<()> {
        let mut section = Mapping::new();
        for (key, text) in self.layer.texts() {
            let Some((_, name)) = key.split_once('.') else {
                continue;
            };
            let value = match (text.parse::<u64>(), text.parse::<bool>()) {
                (Ok(number), _) => Value::from(number),
                (_, Ok(truth)) => Value::from(truth),
                (Err(_), Err(_)) => Value::from(text),
            };
            section.insert(Value::from(name), value);
        }
        let document = Mapping::from_iter([(Value::from("replication"), Value::from(section))]);
        let text = serde_yaml::to_string(&document).map_err(io::Error::other)?;
        let part = self.file.with_extension("yaml.part");
        let mut file = File::create(&part)?;
        file.write_all(HEADER.as_bytes())?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&part, &self.file)?;
        match self.file.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    }
}
