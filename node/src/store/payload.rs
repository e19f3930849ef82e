//! Payloads as they are looked at in a search: JSON text, of which only what is asked for is read, and numbers as they
//! were written.

mod number;

use std::borrow::Cow;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::cancel::{Cancel, Cancelled};
pub use number::Number;

/// After so many bytes of JSON it is asked whether they are still wanted: some tens of microseconds.
const BYTES_BETWEEN_LOOKS: usize = 16 << 10;
/// What a step costs beside the bytes that it reads.
const STEP: usize = 16;

/// How much has been read since it was asked whether that is still wanted.
pub(super) struct Steps<'a> {
    cancel: &'a dyn Cancel,
    bytes: Cell<usize>,
}

impl<'a> Steps<'a> {
    pub(super) fn new(cancel: &'a dyn Cancel) -> Self {
        Steps {
            cancel,
            bytes: Cell::new(0),
        }
    }

    /// A step over so many bytes is about to be taken.
    pub(super) fn over(&self, bytes: usize) -> Result<(), Cancelled> {
        let bytes = self.bytes.get().saturating_add(bytes + STEP);
        if bytes < BYTES_BETWEEN_LOOKS {
            self.bytes.set(bytes);
            return Ok(());
        }
        self.bytes.set(0);
        self.cancel.check()
    }
}

/// A plain value.
pub(super) enum Scalar<'a> {
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
}

/// The entries of a JSON object, their values unread. Of entries of the same key the last counts.
#[derive(Default)]
pub(super) struct Object<'a> {
    pub(super) entries: BTreeMap<Cow<'a, str>, &'a RawValue>,
    /// A key that is there more than once.
    pub(super) twice: Option<Cow<'a, str>>,
}

impl Object<'_> {
    /// Whether a value at a path, or an element of an array there, passes a test.
    pub(super) fn any(
        &self,
        path: &str,
        steps: &Steps<'_>,
        test: &dyn Fn(&str) -> bool,
    ) -> Result<bool, Cancelled> {
        self.walk(
            path,
            &|value| {
                if value.starts_with('[') {
                    elements(value, steps, &|element| Ok(test(element)))
                } else {
                    steps.over(value.len())?;
                    Ok(test(value))
                }
            },
            steps,
        )
    }

    /// Whether a value at a path passes a test, arrays being values like any other.
    pub(super) fn any_whole(
        &self,
        path: &str,
        steps: &Steps<'_>,
        test: &dyn Fn(&str) -> bool,
    ) -> Result<bool, Cancelled> {
        self.walk(path, &|value| Ok(test(value)), steps)
    }

    fn walk(
        &self,
        path: &str,
        test: &dyn Fn(&str) -> Result<bool, Cancelled>,
        steps: &Steps<'_>,
    ) -> Result<bool, Cancelled> {
        if let Some(value) = self.get(path)
            && test(value)?
        {
            return Ok(true);
        }
        // Every first part that is a key with objects behind it and the rest in them, the longest first.
        for (at, _) in path.rmatch_indices('.') {
            let Some(value) = self.get(&path[..at]) else {
                continue;
            };
            let rest = &path[at + 1..];
            let inside = |value: &str| match value.as_bytes().first() {
                Some(b'{') => {
                    steps.over(value.len())?;
                    let object: Object<'_> = serde_json::from_str(value).unwrap_or_default();
                    object.walk(rest, test, steps)
                }
                Some(_) | None => Ok(false),
            };
            let found = if value.starts_with('[') {
                elements(value, steps, &inside)?
            } else {
                inside(value)?
            };
            if found {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The value of a key, which may be written with `[]` behind it where an array is meant.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let value = self.entries.get(key);
        let value = value.or_else(|| self.entries.get(key.strip_suffix("[]")?));
        value.map(|value| value.get())
    }
}

/// Whether an element of a JSON array passes a test.
fn elements(
    array: &str,
    steps: &Steps<'_>,
    test: &dyn Fn(&str) -> Result<bool, Cancelled>,
) -> Result<bool, Cancelled> {
    struct Elements<'t> {
        steps: &'t Steps<'t>,
        test: &'t dyn Fn(&str) -> Result<bool, Cancelled>,
        outcome: &'t Cell<Result<bool, Cancelled>>,
    }

    impl<'de> Visitor<'de> for Elements<'_> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an array")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<(), A::Error> {
            while let Some(element) = from.next_element::<&RawValue>()? {
                let element = element.get();
                let outcome = self.steps.over(element.len());
                let outcome = outcome.and_then(|()| (self.test)(element));
                self.outcome.set(outcome);
                if outcome != Ok(false) {
                    return Err(A::Error::custom("decided"));
                }
            }
            Ok(())
        }
    }

    impl<'de> DeserializeSeed<'de> for Elements<'_> {
        type Value = ();

        fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
            from.deserialize_seq(self)
        }
    }

    let outcome = Cell::new(Ok(false));
    let elements = Elements {
        steps,
        test,
        outcome: &outcome,
    };
    // An error says no more than that there is an outcome before the array's end.
    let _ = elements.deserialize(&mut serde_json::Deserializer::from_str(array));
    outcome.get()
}

pub(super) fn is_empty_array(json: &str) -> bool {
    let inside = json
        .strip_prefix('[')
        .and_then(|json| json.strip_suffix(']'));
    inside.is_some_and(|inside| inside.trim().is_empty())
}

/// A plain value; `None` for arrays and objects.
pub(super) fn scalar(json: &str) -> Option<Scalar<'_>> {
    match json.as_bytes().first()? {
        b'n' => Some(Scalar::Null),
        b't' => Some(Scalar::Bool(true)),
        b'f' => Some(Scalar::Bool(false)),
        b'"' if !json.contains('\\') => {
            Some(Scalar::Text(Cow::Borrowed(json.get(1..json.len() - 1)?)))
        }
        b'"' => serde_json::from_str(json)
            .ok()
            .map(|text| Scalar::Text(Cow::Owned(text))),
        b'[' | b'{' => None,
        _ => Number::parse(json).map(Scalar::Number),
    }
}

impl<'de> Deserialize<'de> for Object<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Object<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Object<'de>, A::Error> {
                let mut object = Object::default();
                while let Some(Key(key)) = from.next_key()? {
                    let value = from.next_value()?;
                    if object.entries.contains_key(&key) {
                        object.twice.get_or_insert_with(|| key.clone());
                    }
                    object.entries.insert(key, value);
                }
                Ok(object)
            }
        }

        from.deserialize_map(Entries)
    }
}

/// A key, borrowed where it holds no escapes.
struct Key<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Text;

        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }

            fn visit_borrowed_str<E: Error>(self, key: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(key)))
            }

            fn visit_str<E: Error>(self, key: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(key.to_owned())))
            }
        }

        from.deserialize_str(Text)
    }
}
