//! The commands that the documents tell people to type for a promotion, as they stand there.

use serde_json::Value;

use crate::failure::{OrFail, Result};

/// A command that patches `spec.promote`.
pub struct Promotion {
    /// All of it, on one line.
    pub line: String,
    /// How the patch is meant: `json`, `merge`, …
    pub kind: String,
    /// The patch.
    pub patch: Value,
}

impl Promotion {
    /// What the request asks for, when the patch replaces the whole of it.
    pub fn replaces_with(&self) -> Option<&Value> {
        let [operation] = self.patch.as_array()?.as_slice() else {
            return None;
        };
        let whole = operation["op"] == "add" && operation["path"] == "/spec/promote";
        (self.kind == "json" && whole).then(|| &operation["value"])
    }

    /// Gives the request another name, as the documents have one for all.
    pub fn rename(&mut self, request: &str) {
        let Some(before) = self.replaces_with().map(|asked| asked["requestID"].clone()) else {
            return;
        };
        let (before, after) = (before.to_string(), format!("\"{request}\""));
        self.line = self.line.replace(&before, &after);
        self.patch[0]["value"]["requestID"] = request.into();
    }

    /// The words of the command, as a shell takes them apart.
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        for (n, part) in self.line.split('\'').enumerate() {
            if n % 2 == 1 {
                words.push(part.to_owned());
            } else {
                words.extend(part.split_whitespace().map(str::to_owned));
            }
        }
        words
    }
}

/// Every one of them in a document, in its order.
pub fn promotions(document: &str) -> Result<Vec<Promotion>> {
    let joined = document.replace("\\\n", " ");
    let lines = joined.lines().map(str::trim);
    let commands =
        lines.filter(|line| line.starts_with("kubectl patch") && line.contains("promote"));
    commands.map(read).collect()
}

fn read(line: &str) -> Result<Promotion> {
    let patch = line.split('\'').nth(1).or_fail(line)?;
    let kind = line.split("--type=").nth(1).or_fail(line)?;
    let kind = kind.split_whitespace().next().or_fail(line)?;
    Ok(Promotion {
        line: line.to_owned(),
        kind: kind.to_owned(),
        patch: serde_json::from_str(patch).or_fail(line)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_over_two_lines_is_one() {
        let text = "    kubectl patch vc demo --type=json \\\n      -p '[{\"op\": \"add\", \"path\": \"/spec/promote\", \"value\": {}}]'\n";
        let found = promotions(text).unwrap();
        assert_eq!(found.len(), 1);
        let words = found[0].words();
        assert_eq!(
            words[..5],
            ["kubectl", "patch", "vc", "demo", "--type=json"]
        );
        assert_eq!(words[5], "-p");
        assert!(found[0].replaces_with().is_some());
    }

    #[test]
    fn a_merge_patch_replaces_nothing() {
        let text = "kubectl patch vc demo --type=merge -p '{\"spec\": {\"promote\": {}}}'";
        assert!(promotions(text).unwrap()[0].replaces_with().is_none());
    }
}
