//! Where values come from: files, environment, flags, laid over each other key by key. Values are still text here;
//! each remembers its source, so that a refusal can name it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde_yaml::Value;

use super::keys::{KEYS, did_you_mean, find, keys_of, sections};

/// What is wrong with one value or key.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Problem {
    /// Where: file and key path, environment variable, or flag.
    pub place: String,
    /// The key, such as `replication.log_size`.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

/// One value as text, and where it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Setting {
    pub text: String,
    pub place: String,
    /// Whether the environment or a flag says so, which a file cannot override.
    pub fixed: bool,
}

/// Values by key path; later layers replace earlier ones.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Layers {
    settings: BTreeMap<&'static str, Setting>,
}

impl Layers {
    pub(super) fn get(&self, path: &str) -> Option<&Setting> {
        self.settings.get(path)
    }

    pub(super) fn has_section(&self, section: &str) -> bool {
        self.settings
            .keys()
            .any(|path| path.split_once('.').is_some_and(|(of, _)| of == section))
    }

    pub(super) fn remove(&mut self, path: &str) {
        self.settings.remove(path);
    }

    pub(super) fn set(&mut self, path: &str, text: impl Into<String>, place: impl Into<String>) {
        if let Some(key) = find(path) {
            let setting = Setting {
                text: text.into(),
                place: place.into(),
                fixed: false,
            };
            self.settings.insert(key.path, setting);
        }
    }

    /// Everything of `above` replaces what is here.
    pub(super) fn overlay(&mut self, above: Layers) {
        self.settings.extend(above.settings);
    }

    /// Keys and their texts.
    pub(super) fn texts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let settings = self.settings.iter();
        settings.map(|(path, setting)| (*path, setting.text.as_str()))
    }

    /// The keys whose values a file cannot change, with their places.
    pub(super) fn fixed(&self) -> impl Iterator<Item = (&'static str, &Setting)> {
        let settings = self.settings.iter();
        settings
            .filter(|(_, setting)| setting.fixed)
            .map(|(path, setting)| (*path, setting))
    }

    /// Reads a YAML document. Unknown sections and keys are problems, with the allowed ones named.
    pub(super) fn yaml(text: &str, file: &Path, problems: &mut Vec<Problem>) -> Self {
        let mut layer = Layers::default();
        let mut wrong = |place: String, key: &str, message: String| {
            problems.push(Problem {
                place,
                key: key.to_owned(),
                message,
            });
        };
        let file = file.display();
        let document = match serde_yaml::from_str::<Value>(text) {
            Ok(Value::Null) => return layer,
            Ok(Value::Mapping(document)) => document,
            Ok(other) => {
                let kind = kind(&other);
                wrong(
                    file.to_string(),
                    "",
                    format!(
                        "the file holds {kind}; expected the sections {}",
                        list(&sections())
                    ),
                );
                return layer;
            }
            Err(error) => {
                wrong(file.to_string(), "", format!("not YAML: {error}"));
                return layer;
            }
        };
        for (section, body) in document {
            let section = key_text(&section);
            if !sections().contains(&section.as_str()) {
                let message = unknown("section", &section, &sections());
                wrong(format!("{file}: {section}"), &section, message);
                continue;
            }
            let body = match body {
                Value::Null => continue,
                Value::Mapping(body) => body,
                other @ (Value::Bool(_)
                | Value::Number(_)
                | Value::String(_)
                | Value::Sequence(_)
                | Value::Tagged(_)) => {
                    let kind = kind(&other);
                    let message =
                        format!("is {kind}; expected the keys {}", list(&keys_of(&section)));
                    wrong(format!("{file}: {section}"), &section, message);
                    continue;
                }
            };
            for (name, value) in body {
                let name = key_text(&name);
                let path = format!("{section}.{name}");
                let place = format!("{file}: {path}");
                let Some(key) = find(&path) else {
                    let message = unknown("key", &name, &keys_of(&section));
                    wrong(place, &path, message);
                    continue;
                };
                match scalar(&value) {
                    Some(Some(text)) => layer.set(key.path, text, place),
                    Some(None) => {}
                    None => {
                        let message = format!("is {}; expected a single value", kind(&value));
                        wrong(place, &path, message);
                    }
                }
            }
        }
        layer
    }

    /// Reads the environment variables of the table. An empty variable counts as absent.
    pub(super) fn environment(environment: &BTreeMap<String, String>) -> Self {
        let mut layer = Layers::default();
        for key in KEYS {
            let Some(name) = key.env else { continue };
            let value = environment.get(name).filter(|value| !value.is_empty());
            if let Some(value) = value {
                layer.fix(key.path, value, format!("environment variable {name}"));
            }
        }
        layer
    }

    pub(super) fn fix(&mut self, path: &'static str, text: &str, place: String) {
        self.settings.insert(
            path,
            Setting {
                text: text.to_owned(),
                place,
                fixed: true,
            },
        );
    }
}

/// Variables that look like ours and mean nothing. They are not refused: others may use such names too. Those that
/// Kubernetes adds for each Service are left out.
pub(super) fn suspicious(environment: &BTreeMap<String, String>) -> Vec<String> {
    let known: Vec<&str> = KEYS.iter().filter_map(|key| key.env).collect();
    let ours = |name: &str| name.starts_with("REPLICATION_") || name.starts_with("VECTORIZER_");
    environment
        .keys()
        .filter(|name| ours(name) && !known.contains(&name.as_str()) && !is_of_a_service(name))
        .map(|name| {
            let hint = did_you_mean(name, &known).map(|meant| format!(": did you mean {meant}?"));
            let hint = hint.unwrap_or_default();
            format!("environment variable {name} means nothing to this program{hint}")
        })
        .collect()
}

/// `<SERVICE>_SERVICE_HOST`, `<SERVICE>_SERVICE_PORT…`, `<SERVICE>_PORT` and `<SERVICE>_PORT_<NUMBER>_…`.
fn is_of_a_service(name: &str) -> bool {
    let port = name.split_once("_PORT").map(|(_, rest)| rest);
    name.contains("_SERVICE_") || port.is_some_and(|rest| rest.is_empty() || rest.starts_with('_'))
}

pub(super) fn unknown(what: &str, found: &str, allowed: &[&str]) -> String {
    let hint = did_you_mean(found, allowed)
        .map(|word| format!(" (did you mean `{word}`?)"))
        .unwrap_or_default();
    format!("unknown {what}{hint}; allowed: {}", list(allowed))
}

pub(super) fn list(words: &[&str]) -> String {
    words.join(", ")
}

/// The text of a scalar; inside, `None` for an empty value.
fn scalar(value: &Value) -> Option<Option<String>> {
    match value {
        Value::Null => Some(None),
        Value::Bool(value) => Some(Some(value.to_string())),
        Value::Number(value) => Some(Some(value.to_string())),
        Value::String(value) => Some(Some(value.clone())),
        Value::Sequence(_) | Value::Mapping(_) | Value::Tagged(_) => None,
    }
}

fn key_text(value: &Value) -> String {
    scalar(value)
        .flatten()
        .unwrap_or_else(|| kind(value).to_owned())
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Sequence(_) => "a list",
        Value::Mapping(_) => "a mapping",
        Value::Tagged(_) => "a tagged value",
    }
}
