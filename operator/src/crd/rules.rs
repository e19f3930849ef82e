//! What the API server refuses by itself, and with which words: CEL rules, put into the schema at the place where they
//! apply. No webhook, so no webhook certificates. The operator checks again what a rule cannot know.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

use super::VectorizerCluster;

/// One rule of the schema.
pub struct Rule {
    /// Where it applies: property names from the root of the resource, separated by dots. Empty for the root itself.
    pub at: &'static str,
    /// The rule in CEL. One that mentions `oldSelf` applies to changes only.
    pub rule: &'static str,
    /// What a user is told.
    pub message: &'static str,
}

/// Every rule.
pub const RULES: &[Rule] = &[
    Rule {
        at: "",
        rule: "size(self.metadata.name) <= 40",
        message: "metadata.name: at most 40 characters, so that the names made from it fit",
    },
    Rule {
        at: "",
        rule: "self.metadata.name.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')",
        message: "metadata.name: small letters, digits and '-' only, beginning with a letter and not ending with '-', because Services are named after it",
    },
    Rule {
        at: "",
        rule: "!has(self.spec.promote) || !has(self.spec.promote.target) || self.spec.promote.target == self.metadata.name + '-master-0' || (self.spec.promote.target.startsWith(self.metadata.name + '-replica-') && self.spec.promote.target.substring(size(self.metadata.name) + 9).matches('^(0|[1-9][0-9]?)$'))",
        message: "spec.promote.target: must be a pod of this cluster, <name>-master-0 or <name>-replica-<number>",
    },
    Rule {
        at: "spec",
        rule: "!has(self.writeConcern) || self.writeConcern.acks <= self.replicas",
        message: "writeConcern.acks: at most as many as there are replicas; raise replicas first, or lower acks first",
    },
    Rule {
        at: "spec.promote",
        rule: "self.requestID.matches('^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$')",
        message: "requestID: letters, digits, '-', '_' and '.' only, beginning and ending with a letter or digit",
    },
    Rule {
        at: "spec.promote",
        rule: "self.requestID != oldSelf.requestID || (self.mode == oldSelf.mode && self.deadlineSeconds == oldSelf.deadlineSeconds && has(self.target) == has(oldSelf.target) && (!has(self.target) || self.target == oldSelf.target) && has(self.maxLagOperations) == has(oldSelf.maxLagOperations) && (!has(self.maxLagOperations) || self.maxLagOperations == oldSelf.maxLagOperations))",
        message: "promote: a request is carried out once and cannot be changed; give another requestID with it",
    },
    Rule {
        at: "spec.storage.size",
        // What is smaller was meant otherwise, as a 10 without its Gi.
        rule: "type(self) == int ? self >= 67108864 : (isQuantity(self) && quantity(self).compareTo(quantity('64Mi')) >= 0)",
        message: "storage.size: must be a size of at least 64Mi, such as 10Gi",
    },
    Rule {
        at: "",
        rule: "!has(oldSelf.status) || !has(oldSelf.status.master) || !isQuantity(string(self.spec.storage.size)) || !isQuantity(string(oldSelf.spec.storage.size)) || quantity(string(self.spec.storage.size)).compareTo(quantity(string(oldSelf.spec.storage.size))) >= 0 || (has(oldSelf.status.volumeSize) && isQuantity(oldSelf.status.volumeSize) && quantity(string(self.spec.storage.size)).compareTo(quantity(oldSelf.status.volumeSize)) >= 0)",
        message: "spec.storage.size: may only grow, or go back to status.volumeSize where volumes could not",
    },
    Rule {
        at: "",
        rule: "!has(oldSelf.status) || !has(oldSelf.status.master) || (has(self.spec.storage.storageClassName) == has(oldSelf.spec.storage.storageClassName) && (!has(self.spec.storage.storageClassName) || self.spec.storage.storageClassName == oldSelf.spec.storage.storageClassName))",
        message: "spec.storage.storageClassName: cannot be changed once there was a master",
    },
    Rule {
        at: "spec.tolerations",
        rule: "self.all(t, (!has(t.operator) || t.operator in ['Exists', 'Equal', 'Lt', 'Gt']) && (!has(t.effect) || t.effect in ['', 'NoSchedule', 'PreferNoSchedule', 'NoExecute']))",
        message: "tolerations: operator must be Exists or Equal (or Lt or Gt, where the API server knows them), effect NoSchedule, PreferNoSchedule or NoExecute",
    },
    Rule {
        at: "spec.tolerations",
        rule: "self.all(t, !has(t.operator) || t.operator != 'Exists' || !has(t.value) || t.value == '')",
        message: "tolerations: with operator Exists there is no value",
    },
    Rule {
        at: "spec.replication",
        rule: "self.replicaTimeoutSeconds > self.heartbeatIntervalSeconds",
        message: "replication.replicaTimeoutSeconds: must be above heartbeatIntervalSeconds",
    },
    Rule {
        at: "spec.env",
        rule: "self.all(e, !e.name.startsWith('REPLICATION_') && !(e.name in ['VECTORIZER_DATA_DIR', 'VECTORIZER_NODE_NAME', 'VECTORIZER_HTTP_ADDRESS', 'VECTORIZER_OPS_ADDRESS', 'VECTORIZER_ADVERTISED_HOST', 'POD_NAME', 'POD_NAMESPACE', 'POD_IP']))",
        message: "env: REPLICATION_*, POD_NAME, POD_NAMESPACE, POD_IP and VECTORIZER_DATA_DIR, _NODE_NAME, _HTTP_ADDRESS, _OPS_ADDRESS and _ADVERTISED_HOST are set by the operator; see spec.replication",
    },
    Rule {
        at: "spec.podLabels",
        rule: "self.all(k, !k.startsWith('vectorizer.hivellm.io/') && !(k in ['app.kubernetes.io/name', 'app.kubernetes.io/instance', 'app.kubernetes.io/managed-by', 'app.kubernetes.io/component']))",
        message: "podLabels: vectorizer.hivellm.io/* and app.kubernetes.io/name, instance, component and managed-by are set by the operator",
    },
    Rule {
        at: "spec.podAnnotations",
        rule: "self.all(k, !k.startsWith('vectorizer.hivellm.io/'))",
        message: "podAnnotations: vectorizer.hivellm.io/* is set by the operator",
    },
];

/// Keys of objects whose types are Kubernetes' own and are embedded without their texts.
const EMBEDDED: [&str; 5] = [
    "affinity",
    "env",
    "imagePullSecrets",
    "tolerations",
    "topologySpreadConstraints",
];

/// The whole definition: the schema of the Rust types, with the rules and without what the API server has no use for.
///
/// # Panics
/// When a rule names a place that the schema does not have; a test makes sure that none does.
pub fn definition() -> CustomResourceDefinition {
    let mut crd = VectorizerCluster::crd();
    for version in &mut crd.spec.versions {
        let Some(root) = version
            .schema
            .as_mut()
            .and_then(|s| s.open_api_v3_schema.as_mut())
        else {
            continue;
        };
        // As JSON it can be walked by path; the typed schema has a field for each of a hundred keywords.
        let Ok(mut schema) = serde_json::to_value(&*root) else {
            continue;
        };
        tidy(&mut schema);
        for embedded in EMBEDDED {
            if let Some(Value::Object(field)) = at(&mut schema, &format!("spec.{embedded}")) {
                let text = field.remove("description");
                let mut inner = Value::Object(std::mem::take(field));
                drop_texts(&mut inner);
                if let Value::Object(inner) = inner {
                    *field = inner;
                }
                field.extend(text.map(|text| ("description".to_owned(), text)));
            }
        }
        for Rule {
            at: path,
            rule,
            message,
        } in RULES
        {
            let place = at(&mut schema, path);
            assert!(place.is_some(), "no field {path} for the rule {rule}");
            if let Some(Value::Object(place)) = place {
                let rules = place.entry("x-kubernetes-validations").or_insert(json!([]));
                if let Value::Array(rules) = rules {
                    rules.push(json!({ "rule": rule, "message": message }));
                }
            }
        }
        // The rule says it in words.
        if let Some(Value::Object(size)) = at(&mut schema, "spec.storage.size") {
            size.remove("pattern");
        }
        list_map(&mut schema, "status.conditions", "type");
        list_map(&mut schema, "status.nodes", "pod");
        list_map(&mut schema, "spec.env", "name");
        list_map(&mut schema, "spec.imagePullSecrets", "name");
        list_of(&mut schema, "spec.tolerations", "atomic");
        list_of(&mut schema, "spec.topologySpreadConstraints", "atomic");
        list_of(&mut schema, "status.memory.handledRequests", "atomic");
        list_of(&mut schema, "status.writeConcern.members", "set");
        if let Ok(typed) = serde_json::from_value(schema) {
            *root = typed;
        }
    }
    crd
}

/// The definition as YAML, as it stands in `crds/`.
pub fn yaml() -> Result<String, serde_yaml::Error> {
    Ok(format!(
        "# Written by `vectorizer-operator crd`.\n{}",
        serde_yaml::to_string(&definition())?
    ))
}

fn at<'a>(schema: &'a mut Value, path: &str) -> Option<&'a mut Value> {
    path.split('.')
        .filter(|name| !name.is_empty())
        .try_fold(schema, |here, name| {
            here.get_mut("properties")?.get_mut(name)
        })
}

fn list_map(schema: &mut Value, path: &str, key: &str) {
    list_of(schema, path, "map");
    if let Some(Value::Object(list)) = at(schema, path) {
        list.insert("x-kubernetes-list-map-keys".into(), json!([key]));
    }
}

/// How server-side apply merges a list: `map` by key, `set` by value, `atomic` as a whole.
fn list_of(schema: &mut Value, path: &str, kind: &str) {
    if let Some(Value::Object(list)) = at(schema, path) {
        list.insert("x-kubernetes-list-type".into(), json!(kind));
    }
}

/// Formats of unsigned numbers are unknown to the API server, which warns about each of them at every apply. Without
/// `nullable` a null counts as absent, which is what a user who writes one means.
fn tidy(schema: &mut Value) {
    each_object(schema, &mut |object| {
        if matches!(
            object.get("format").and_then(Value::as_str),
            Some("uint32" | "uint64")
        ) {
            object.insert("format".into(), json!("int64"));
        }
        if object.get("nullable").is_some_and(Value::is_boolean) {
            object.remove("nullable");
        }
    });
}

fn drop_texts(schema: &mut Value) {
    each_object(schema, &mut |object| {
        // A property may be called so too; then its value is a schema.
        if object.get("description").is_some_and(Value::is_string) {
            object.remove("description");
        }
    });
}

fn each_object(value: &mut Value, visit: &mut dyn FnMut(&mut Map<String, Value>)) {
    match value {
        Value::Object(object) => {
            visit(object);
            for inner in object.values_mut() {
                each_object(inner, visit);
            }
        }
        Value::Array(items) => {
            for inner in items {
                each_object(inner, visit);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Value {
        let crd = definition();
        let schema = crd.spec.versions[0].schema.clone().unwrap();
        serde_json::to_value(schema.open_api_v3_schema.unwrap()).unwrap()
    }

    #[test]
    fn every_rule_is_in_the_definition_with_its_message() {
        let mut schema = schema();
        for rule in RULES {
            let place = at(&mut schema, rule.at).unwrap();
            let rules = place["x-kubernetes-validations"].as_array().unwrap();
            assert!(
                rules
                    .iter()
                    .any(|r| r["rule"] == rule.rule && r["message"] == rule.message),
                "{}: {}",
                rule.at,
                rule.rule
            );
        }
    }

    #[test]
    fn the_checked_in_definition_is_current() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../crds/vectorizerclusters.yaml"
        );
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(
            found == yaml().unwrap(),
            "crds/vectorizerclusters.yaml is stale: write it with `vectorizer-operator crd`"
        );
    }

    #[test]
    fn every_list_of_this_resource_says_how_it_is_merged() {
        fn check(schema: &Value, path: &str) {
            let Some(Value::Object(properties)) = schema.get("properties") else {
                return;
            };
            for (name, inner) in properties {
                let path = format!("{path}.{name}");
                if inner["type"] == "array" {
                    let kind = inner.get("x-kubernetes-list-type");
                    assert!(kind.is_some(), "{path} does not say how it is merged");
                    if kind == Some(&json!("map")) {
                        for key in inner["x-kubernetes-list-map-keys"].as_array().unwrap() {
                            let required = inner["items"]["required"].as_array().unwrap();
                            let defaulted =
                                &inner["items"]["properties"][key.as_str().unwrap()]["default"];
                            assert!(
                                required.contains(key) || !defaulted.is_null(),
                                "{path}: {key}"
                            );
                        }
                    }
                } else if !EMBEDDED.contains(&name.as_str()) {
                    check(inner, &path);
                }
            }
        }
        let schema = schema();
        check(&schema["properties"]["spec"], "spec");
        check(&schema["properties"]["status"], "status");
    }

    #[test]
    fn names_and_values_follow_kubernetes_conventions() {
        fn check(schema: &Value, path: &str) {
            for value in schema["enum"].as_array().unwrap_or(&Vec::new()) {
                let Some(word) = value.as_str() else { continue };
                assert!(word.starts_with(char::is_uppercase), "{path}: {word}");
            }
            if let Some(Value::Object(properties)) = schema.get("properties") {
                for (name, inner) in properties {
                    let path = format!("{path}.{name}");
                    if path == "status.conditions" || EMBEDDED.contains(&name.as_str()) {
                        continue;
                    }
                    for ending in ["Secs", "Sec", "Ms", "Millis", "Id", "Ids", "Url"] {
                        assert!(!name.ends_with(ending), "{path} ends with {ending}");
                    }
                    check(inner, &path);
                }
            }
            if let Some(items) = schema.get("items") {
                check(items, path);
            }
        }
        let schema = schema();
        check(&schema["properties"]["spec"], "spec");
        check(&schema["properties"]["status"], "status");
    }

    #[test]
    fn kubectl_apply_can_store_the_definition_in_its_annotation() {
        let size = serde_json::to_string(&definition()).unwrap().len();
        assert!(size < 200 << 10, "{size} bytes");
    }

    #[test]
    fn the_schema_is_structural_everywhere() {
        fn check(schema: &Value, path: &str) {
            let int_or_string = schema.get("x-kubernetes-int-or-string").is_some();
            assert!(
                schema.get("type").is_some() || int_or_string,
                "{path} has no type"
            );
            assert!(
                schema.get("$ref").is_none() && schema.get("oneOf").is_none(),
                "{path}"
            );
            if let Some(Value::Object(properties)) = schema.get("properties") {
                for (name, inner) in properties {
                    check(inner, &format!("{path}.{name}"));
                }
            }
            for key in ["items", "additionalProperties"] {
                if let Some(inner) = schema.get(key) {
                    check(inner, &format!("{path}.{key}"));
                }
            }
        }
        let schema = schema();
        check(&schema["properties"]["spec"], "spec");
        check(&schema["properties"]["status"], "status");
    }
}
