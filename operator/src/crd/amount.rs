//! A quantity as users write it: `500m`, `10Gi`, `2`.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};

/// What the API server accepts as a quantity that is not negative.
const PATTERN: &str =
    r"^[+]?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE][+-]?[0-9]+))?$";

/// A quantity: a whole number, or a text such as `10Gi`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Amount(String);

impl Amount {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The number that it stands for, as far as it can be read. Precise enough to tell larger from smaller.
    pub fn value(&self) -> Option<f64> {
        let text = self.0.trim();
        let digits = text
            .find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '+' || c == '-'))
            .unwrap_or(text.len());
        let (number, suffix) = text.split_at(digits);
        let number: f64 = number.parse().ok()?;
        let factor = match suffix {
            "" => 1.0,
            "n" => 1e-9,
            "u" => 1e-6,
            "m" => 1e-3,
            "k" => 1e3,
            "M" => 1e6,
            "G" => 1e9,
            "T" => 1e12,
            "P" => 1e15,
            "E" => 1e18,
            "Ki" => 1024.0,
            "Mi" => 1024f64.powi(2),
            "Gi" => 1024f64.powi(3),
            "Ti" => 1024f64.powi(4),
            "Pi" => 1024f64.powi(5),
            "Ei" => 1024f64.powi(6),
            other => {
                let exponent = other.strip_prefix(['e', 'E'])?;
                10f64.powi(exponent.parse().ok()?)
            }
        };
        Some(number * factor)
    }
}

impl From<&str> for Amount {
    fn from(text: &str) -> Self {
        Amount(text.to_owned())
    }
}

impl From<&Amount> for Quantity {
    fn from(amount: &Amount) -> Self {
        Quantity(amount.0.clone())
    }
}

impl<'de> Deserialize<'de> for Amount {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Raw {
            Whole(i64),
            Text(String),
        }
        Ok(match Raw::deserialize(deserializer)? {
            Raw::Whole(number) => Amount(number.to_string()),
            Raw::Text(text) => Amount(text),
        })
    }
}

impl JsonSchema for Amount {
    fn schema_name() -> Cow<'static, str> {
        "Amount".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "pattern": PATTERN,
            // A longer one stands for nothing; and rules about them must not cost too much.
            "maxLength": 32,
            "x-kubernetes-int-or-string": true,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_compared_by_what_they_stand_for() {
        let value = |text| Amount::from(text).value();
        assert_eq!(value("1Gi"), Some(1_073_741_824.0));
        assert_eq!(value("1024Mi"), value("1Gi"));
        assert_eq!(value("500m"), Some(0.5));
        assert_eq!(value("2e3"), value("2k"));
        assert_eq!(value("ten"), None);
    }

    #[test]
    fn a_number_in_yaml_is_a_quantity_too() {
        let amount: Amount = serde_json::from_str("2").unwrap();
        assert_eq!(amount, Amount::from("2"));
    }
}
