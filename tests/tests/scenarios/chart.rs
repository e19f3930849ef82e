//! The chart: linted, rendered with each kind of values, and accepted by the API server's own validation.

use vectorizer_e2e::failure::{OrFail, Result};
use vectorizer_e2e::scope::{Scope, scenario};
use vectorizer_e2e::shell;

/// A helm that was built from source takes a cluster for an ancient one when it only renders.
const RENDER: [&str; 7] = [
    "template",
    "checked",
    CHART,
    "--kube-version",
    "1.34",
    "--set",
    "image.repository=registry.example.com/operator,nodeImage.repository=registry.example.com/node",
];
const CHART: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../charts/vectorizer-operator");

#[tokio::test]
async fn helm_finds_nothing_wrong_with_the_chart() {
    shell::must("helm", &["lint", "--strict", CHART])
        .await
        .unwrap();
}

#[tokio::test]
async fn the_api_server_accepts_every_rendered_object() {
    scenario("chart", accepted).await;
}

async fn accepted(scope: Scope) -> Result<()> {
    let only = format!("watchNamespaces={{default,{}}}", scope.namespace);
    for values in [vec![], vec!["--set", only.as_str()]] {
        let render = [&RENDER[..], &["--namespace", &scope.namespace], &values].concat();
        let objects = shell::must("helm", &render).await?;
        let apply = [
            "apply",
            "--dry-run=server",
            "--force-conflicts",
            "--server-side",
            "-f",
            "-",
        ];
        let answer = shell::must_with("kubectl", &apply, &objects).await?;
        for kind in [
            "deployment.apps",
            "customresourcedefinition",
            "role.rbac",
            "service/",
        ] {
            assert!(answer.contains(kind), "no {kind} in:\n{answer}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn values_that_mean_nothing_are_refused_by_name() {
    for (set, names) in [
        ("replicaCunt=2", "replicaCunt"),
        ("image.pullPolicy=Sometimes", "pullPolicy"),
        ("replicaCount=0", "replicaCount"),
        ("runAs=Root", "runAs"),
        ("leaderElection.enabled=false", "leaderElection.enabled"),
        ("watchNamespaces={Upper}", "watchNamespaces"),
        ("image.repository=", "image.repository is needed"),
        ("nodeImage.repository=", "nodeImage.repository is needed"),
        (
            "podLabels.vectorizer\\.hivellm\\.io/operator=no",
            "vectorizer.hivellm.io/operator",
        ),
    ] {
        let render = [&RENDER[..], &["--set", set]].concat();
        let refused = shell::run("helm", &render, "").await.unwrap();
        assert!(!refused.success, "{set} was accepted");
        assert!(refused.stderr.contains(names), "{set}: {}", refused.stderr);
    }
}

#[tokio::test]
async fn with_a_list_of_namespaces_the_operator_has_no_cluster_wide_rights_but_to_see_machines() {
    let only = [
        &RENDER[..],
        &["--set", "watchNamespaces={one,two},rbac.aggregate=false"],
    ]
    .concat();
    let objects = shell::must("helm", &only).await.unwrap();
    assert_eq!(objects.matches("\nkind: ClusterRole\n").count(), 1);
    assert!(objects.contains("resources: [nodes]"), "{objects}");
    let roles = objects.matches("\nkind: Role\n").count();
    assert_eq!(
        roles, 3,
        "one per namespace and one for the operator's own Lease"
    );

    let none = [&only[..], &["--set", "rbac.readNodes=false"]].concat();
    let objects = shell::must("helm", &none).await.unwrap();
    assert!(!objects.contains("kind: ClusterRole"), "{objects}");
}

#[tokio::test]
async fn whoever_may_view_or_edit_a_namespace_may_view_or_edit_its_clusters() {
    scenario("roles", aggregated).await;
}

async fn aggregated(scope: Scope) -> Result<()> {
    let space = ["--namespace", scope.namespace.as_str()];
    let clusters = "vectorizerclusters.vectorizer.hivellm.io";
    for (role, verb, subresource, expected) in [
        ("view", "watch", "", true),
        ("view", "get", "status", true),
        ("view", "patch", "", false),
        ("view", "update", "scale", false),
        ("edit", "create", "", true),
        ("edit", "delete", "", true),
        ("edit", "update", "scale", true),
        ("edit", "update", "status", false),
        ("admin", "patch", "", true),
    ] {
        let account = format!("{}:{role}", scope.namespace);
        let create = ["create", "rolebinding", role, "--clusterrole", role];
        let grant = ["--serviceaccount", account.as_str()];
        // The binding of a role that came before is there already.
        let _ = shell::run("kubectl", &[&create[..], &grant, &space].concat(), "").await?;
        let user = format!("--as=system:serviceaccount:{account}");
        let sub = format!("--subresource={subresource}");
        let ask = ["auth", "can-i", verb, clusters, &user, &sub];
        let answer = shell::run("kubectl", &[&ask[..], &space].concat(), "").await?;
        let allowed = answer.stdout.trim() == "yes";
        assert!(
            allowed == expected,
            "{role}: {verb} {subresource}: {}{}",
            answer.stdout,
            answer.stderr
        );
    }
    Ok(())
}

#[tokio::test]
async fn network_policies_of_clusters_let_the_operator_in_whatever_it_is_called() {
    let renamed = [&RENDER[..], &["--set", "nameOverride=other"]].concat();
    let objects = shell::must("helm", &renamed).await.unwrap();
    let label = format!(
        "        {}: \"true\"\n",
        vectorizer_operator::names::OPERATOR
    );
    assert!(objects.contains(&label), "{label} is not in\n{objects}");
}

#[tokio::test]
async fn where_the_definition_is_there_already_the_documented_flag_takes_it_over() {
    scenario("there", taken_over).await;
}

/// Another release than the one whose definition is there; all of its rest is new.
async fn taken_over(scope: Scope) -> Result<()> {
    let only = format!("watchNamespaces={{{}}}", scope.namespace);
    let install = [
        "install",
        "another",
        CHART,
        "--dry-run=server",
        "--namespace",
        &scope.namespace,
        "--set",
        "image.repository=registry.example.com/operator,nodeImage.repository=registry.example.com/node",
        "--set",
        &only,
    ];
    let refused = shell::run("helm", &install, "").await?;
    assert!(!refused.success, "{}", refused.stdout);
    let why = &refused.stderr;
    assert!(why.contains("cannot be imported"), "{why}");
    for document in [
        "README.md",
        "charts/vectorizer-operator/templates/NOTES.txt",
    ] {
        let path = format!("{CHART}/../../{document}");
        let text = std::fs::read_to_string(path).or_fail(document)?;
        assert!(text.contains("--take-ownership"), "{document}");
    }
    let taken = [&install[..], &["--take-ownership"]].concat();
    let objects = shell::must("helm", &taken).await?;
    assert!(
        objects.contains("kind: CustomResourceDefinition"),
        "{objects}"
    );
    Ok(())
}

#[tokio::test]
async fn the_platform_may_assign_the_operators_user() {
    let fixed = shell::must("helm", &RENDER).await.unwrap();
    assert!(fixed.contains("runAsUser: 65532"), "{fixed}");
    let assigned = [&RENDER[..], &["--set", "runAs=Assigned"]].concat();
    let assigned = shell::must("helm", &assigned).await.unwrap();
    assert!(!assigned.contains("65532"), "{assigned}");
    assert!(assigned.contains("runAsNonRoot: true"), "{assigned}");
}

#[tokio::test]
async fn the_definition_is_kept_when_the_release_goes() {
    let objects = shell::must("helm", &RENDER).await.unwrap();
    let crd = objects
        .split("\n---")
        .find(|object| object.contains("kind: CustomResourceDefinition"));
    let crd = crd.or_fail("the definition").unwrap();
    assert!(crd.contains("helm.sh/resource-policy: keep"), "{crd}");
}
