//! Credentials that the operator makes, and those that it leaves alone.

use super::model::Model;
use crate::crd::Auth;
use crate::names::{condition, reason};
use crate::world::SecretSeen;

fn degraded(model: &Model) -> (String, String) {
    let conditions = model.status.conditions.iter();
    let found = conditions.filter(|c| c.type_ == condition::DEGRADED);
    let mut found = found.map(|c| (c.reason.clone(), c.message.clone()));
    found.next().unwrap()
}

#[test]
fn a_key_that_a_secret_of_the_user_s_lacks_is_named_and_not_made() {
    let mut model = Model::new(1);
    let lacks = vec!["read-key"];
    model.secrets.auth = SecretSeen::Incomplete { made: false, lacks };
    for _ in 0..3 {
        let plan = model.pass();
        assert!(
            !plan.secrets.iter().any(|(name, _)| name == "demo-auth"),
            "{:?}",
            plan.secrets
        );
    }
    let (why, text) = degraded(&model);
    assert_eq!(why, reason::SECRET_INCOMPLETE);
    assert!(
        text.contains("demo-auth") && text.contains("read-key") && !text.contains("admin-key"),
        "{text}"
    );
    model.secrets.auth = SecretSeen::Complete;
    model.settle();
    model.assert_sound();
    assert_eq!(degraded(&model).0, reason::NOTHING_WRONG);
}

#[test]
fn a_key_that_is_missing_in_a_secret_that_the_operator_made_is_made_again() {
    let mut model = Model::healthy(2);
    let lacks = vec!["read-key"];
    model.secrets.auth = SecretSeen::Incomplete { made: true, lacks };
    let plan = model.pass();
    assert_eq!(
        plan.secrets,
        [("demo-auth".to_owned(), vec!["admin-key", "read-key"])]
    );
    model.settle();
    model.assert_sound();
}

#[test]
fn a_secret_that_the_spec_names_is_waited_for_and_never_made() {
    let mut model = Model::new(1);
    let secret_name = Some("mine".to_owned());
    model.cluster.spec.auth = Some(Auth { secret_name });
    let lacks = vec!["admin-key"];
    for (seen, why) in [
        (SecretSeen::Missing, reason::SECRET_MISSING),
        (
            SecretSeen::Incomplete { made: true, lacks },
            reason::SECRET_INCOMPLETE,
        ),
    ] {
        model.secrets.auth = seen;
        let plan = model.pass();
        assert!(
            !plan.secrets.iter().any(|(name, _)| name != "demo-internal"),
            "{:?}",
            plan.secrets
        );
        model.pass();
        let (said, text) = degraded(&model);
        assert_eq!(said, why);
        assert!(
            text.contains("mine") && text.contains("admin-key"),
            "{text}"
        );
    }
    model.secrets.auth = SecretSeen::Complete;
    model.settle();
    model.assert_sound();
}
