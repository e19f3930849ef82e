//! JSON that a request carries and that nobody needs as a tree: payloads and filters stay the text that they came as.
//!
//! A tree of small objects takes eighty times the memory of its text. So a text is walked once without building anything,
//! which finds out that whoever reads it later can, and how much it holds.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::ser::{Error as _, SerializeMap};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use vectorizer_api::data::TEXT_KEY;
use vectorizer_api::error::ApiError;

use crate::http::answer::invalid;

/// JSON may be nested this deep, so that whoever reads it can.
const MAX_DEPTH: usize = 64;
/// Values in a payload, those inside of others included: a filter that looks into an object makes a map of its keys.
const MAX_PAYLOAD_VALUES: usize = 65_536;

/// Any JSON value, as it came.
#[derive(Clone, Debug, Default)]
pub(in crate::http) struct Json(Option<Box<RawValue>>);

impl Json {
    pub(super) fn get(&self) -> &str {
        self.0.as_ref().map_or("null", |text| text.get())
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Box::<RawValue>::deserialize(from).map(|text| Json(Some(text)))
    }
}

/// A JSON object, as it came. What is in it is looked at by [`Object::checked`].
#[derive(Clone, Debug, Default)]
pub(in crate::http) struct Object(Json);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let json = Json::deserialize(from)?;
        if json.get().starts_with('{') {
            Ok(Object(json))
        } else {
            Err(D::Error::custom("expected a JSON object (a map)"))
        }
    }
}

impl Object {
    /// Bytes of its text.
    pub(super) fn len(&self) -> usize {
        self.0.get().len()
    }

    /// Its text without spaces, if it may be a payload; `path` names it in errors.
    pub(super) fn checked(&self, path: &str) -> Result<Vec<u8>, ApiError> {
        let text = self.0.get();
        check_payload(text).map_err(|message| invalid(path, message))?;
        let mut out = Vec::with_capacity(text.len());
        compact(text, &mut out);
        Ok(out)
    }

    /// The payload of a text, which stands in it under its own key.
    pub(super) fn with_text(given: Option<&Object>, text: &str) -> Result<Vec<u8>, ApiError> {
        let rest = given.map_or_else(|| Ok(b"{}".to_vec()), |object| object.checked("metadata"))?;
        let mut there = None;
        each_key(&rest, |key, value| {
            if key == TEXT_KEY {
                there =
                    Some(serde_json::from_str::<Key<'_>>(value.get()).is_ok_and(|t| t.0 == text));
            }
        });
        match there {
            Some(true) => return Ok(rest),
            Some(false) => {
                return Err(invalid(
                    &format!("metadata.{TEXT_KEY}"),
                    "this key holds the text itself: choose another one",
                ));
            }
            None => {}
        }
        let mut out = Vec::with_capacity(rest.len() + text.len() + 16);
        out.extend_from_slice(b"{\"content\":");
        serde_json::to_writer(&mut out, text).map_err(|error| invalid("text", error))?;
        if rest.len() > b"{}".len() {
            out.push(b',');
        }
        out.extend_from_slice(&rest[1..]);
        Ok(out)
    }
}

/// Whether a text that is JSON may be a payload; why not otherwise.
pub(super) fn check_payload(text: &str) -> Result<(), String> {
    let census = Census::take(text)?;
    if census.values > MAX_PAYLOAD_VALUES {
        return Err(format!(
            "holds {} values: at most {MAX_PAYLOAD_VALUES} are allowed in a payload",
            census.values
        ));
    }
    Ok(())
}

/// What a JSON text holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Census {
    /// Values, all in all.
    pub values: usize,
    /// Of these, objects.
    pub objects: usize,
}

impl Census {
    /// Walks a text. `Err` says why nobody could read it.
    pub(super) fn take(text: &str) -> Result<Census, String> {
        let mut census = Census::default();
        let mut reader = serde_json::Deserializer::from_str(text);
        let walk = Walk {
            census: &mut census,
            depth: 0,
        };
        let walked = walk.deserialize(&mut reader).and_then(|()| reader.end());
        walked.map_err(|error| error.to_string())?;
        Ok(census)
    }
}

struct Walk<'a> {
    census: &'a mut Census,
    depth: usize,
}

impl Walk<'_> {
    fn inside(&mut self) -> Walk<'_> {
        Walk {
            census: self.census,
            depth: self.depth + 1,
        }
    }
}

impl<'de> DeserializeSeed<'de> for Walk<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        self.census.values += 1;
        if self.depth > MAX_DEPTH {
            return Err(D::Error::custom(format_args!(
                "nested deeper than {MAX_DEPTH} levels"
            )));
        }
        from.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut from: A) -> Result<(), A::Error> {
        while from.next_element_seed(self.inside())?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut from: A) -> Result<(), A::Error> {
        self.census.objects += 1;
        while from.next_key::<IgnoredAny>()?.is_some() {
            from.next_value_seed(self.inside())?;
        }
        Ok(())
    }
}

/// JSON without the spaces between its parts.
fn compact(text: &str, out: &mut Vec<u8>) {
    let (mut in_string, mut escaped) = (false, false);
    for byte in text.bytes() {
        if in_string {
            in_string = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
        } else if byte.is_ascii_whitespace() {
            continue;
        } else {
            in_string = byte == b'"';
        }
        out.push(byte);
    }
}

#[derive(Deserialize)]
struct Key<'a>(#[serde(borrow)] Cow<'a, str>);

/// Shows each key of an object with its value. What is no object has none.
fn each_key<'a>(object: &'a [u8], see: impl FnMut(&str, &'a RawValue)) {
    struct Keys<F>(F);

    impl<'a, F: FnMut(&str, &'a RawValue)> Visitor<'a> for Keys<F> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'a>>(mut self, mut from: A) -> Result<(), A::Error> {
            while let Some(Key(key)) = from.next_key()? {
                (self.0)(&key, from.next_value()?);
            }
            Ok(())
        }
    }

    let mut reader = serde_json::Deserializer::from_slice(object);
    // It was an object when it was written, and its checksum has been verified since.
    let _ = reader.deserialize_map(Keys(see));
}

/// A payload as answers show it, without a tree of it.
pub(super) struct Shown<'a>(pub &'a [u8]);

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let text: Result<&RawValue, _> = serde_json::from_slice(self.0);
        text.map_err(S::Error::custom)?.serialize(to)
    }
}

/// The same without its text, if it has one.
pub(super) struct WithoutText<'a>(pub &'a [u8]);

impl Serialize for WithoutText<'_> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(None)?;
        let mut failed = None;
        each_key(self.0, |key, value| {
            if failed.is_none() && !(key == TEXT_KEY && is_text(value)) {
                failed = map.serialize_entry(key, value).err();
            }
        });
        match failed {
            Some(error) => Err(error),
            None => map.end(),
        }
    }
}

/// The text that a payload holds, as it stands there.
pub(super) fn text_of(payload: &[u8]) -> Option<&RawValue> {
    let mut text = None;
    each_key(payload, |key, value| {
        if key == TEXT_KEY {
            text = Some(value).filter(|value| is_text(value));
        }
    });
    text
}

fn is_text(value: &RawValue) -> bool {
    value.get().starts_with('"')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(text: &str) -> Object {
        serde_json::from_str(text).unwrap()
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_payload_keeps_its_text_and_loses_the_spaces_between_its_parts() {
        let given = "{ \"a b\" : [ 1.50 , 18446744073709551617 ] ,\n \"q\\\"  \\\\\" : \"x  y\" }";
        let kept = r#"{"a b":[1.50,18446744073709551617],"q\"  \\":"x  y"}"#;
        assert_eq!(text(object(given).checked("p").unwrap()), kept);
    }

    #[test]
    fn what_nobody_could_read_is_no_payload() {
        let nested = |depth| format!(r#"{{"a":{}1{}}}"#, "[".repeat(depth), "]".repeat(depth));
        object(&nested(MAX_DEPTH - 1)).checked("p").unwrap();
        let many = format!("{{\"a\":[{}0]}}", "0,".repeat(MAX_PAYLOAD_VALUES));
        for (given, why) in [
            (nested(MAX_DEPTH).as_str(), "deeper than 64"),
            (&nested(100_000), "deeper than 64"),
            (r#"{"a":1e999}"#, "out of range"),
            (r#"{"a":"\ud800"}"#, "hex escape"),
            (&many, "at most 65536"),
        ] {
            let error = object(given).checked("p").unwrap_err();
            assert!(error.message.contains(why), "{error}");
        }
        for given in ["[1]", "5", "null"] {
            assert!(serde_json::from_str::<Object>(given).is_err(), "{given}");
        }
    }

    #[test]
    fn a_census_counts_what_a_tree_would_hold() {
        let census = Census::take(r#"{"a": [1, {"b": null}, {}], "c": "d"}"#).unwrap();
        let expected = Census {
            values: 7,
            objects: 3,
        };
        assert_eq!(census, expected);
    }

    #[test]
    fn a_text_stands_in_its_payload_once() {
        let with = |given: &str, text: &str| Object::with_text(Some(&object(given)), text);
        assert_eq!(
            text(with("{}", "a \"b\"").unwrap()),
            r#"{"content":"a \"b\""}"#
        );
        assert_eq!(
            text(with(r#"{"x": 1}"#, "a").unwrap()),
            r#"{"content":"a","x":1}"#
        );
        let same = r#"{"content":"\u0061","x":1}"#;
        assert_eq!(text(with(same, "a").unwrap()), same);
        for other in [r#"{"content": "b"}"#, r#"{"content": null}"#] {
            let error = with(other, "a").unwrap_err();
            assert!(error.message.contains("choose another"), "{error}");
        }
    }

    #[test]
    fn an_answer_shows_a_payload_with_and_without_its_text() {
        let show = |payload: &str| {
            let bytes = payload.as_bytes();
            (
                serde_json::to_string(&Shown(bytes)).unwrap(),
                serde_json::to_string(&WithoutText(bytes)).unwrap(),
                text_of(bytes).map(|text| text.get().to_owned()),
            )
        };
        let all = r#"{"a":1.50,"content":"x\ny","b":{"content":2}}"#;
        let rest = r#"{"a":1.50,"b":{"content":2}}"#;
        assert_eq!(
            show(all),
            (
                all.to_owned(),
                rest.to_owned(),
                Some(r#""x\ny""#.to_owned())
            )
        );
        let other = r#"{"content":[1]}"#;
        assert_eq!(show(other), (other.to_owned(), other.to_owned(), None));
    }
}
