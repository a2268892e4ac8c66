//! The rules an honest gateway keeps, in both shapes.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

mod harness;

use harness::{Gateway, text};
use hyper::{Method, StatusCode};
use reference_gateway::plan;
use reference_gateway::record::Collection;
use reference_gateway::store::seed::Data;

const LISTS: [&str; 6] = [
    "/internal/v1/tasks?limit=1000",
    "/internal/v1/projects?limit=1000",
    "/internal/v1/missions?limit=1000",
    "/api/tasks",
    "/api/projects",
    "/api/missions",
];

#[tokio::test]
async fn nobody_sees_anothers_private_rows() {
    let gateway = Gateway::start(Data::Plan).await;
    for (token, name) in [
        ("token-e1", "Amira"),
        ("token-e2", "Ben"),
        ("token-e3", "Chloe"),
    ] {
        for path in LISTS {
            let answer = gateway.ask(token, path).await.rows();
            let titles = answer.iter().map(|row| {
                let title = row.get("title").or_else(|| row.get("name")).unwrap();
                title.as_str().unwrap().to_owned()
            });
            let private: Vec<_> = titles
                .filter(|title| title.starts_with("private:"))
                .collect();
            let own = private.iter().filter(|title| title.contains(name));
            assert_eq!(own.count(), private.len(), "{path} as {name}: {private:?}");
            assert!(
                !private.is_empty(),
                "{path} lacks the private rows of {name}"
            );
        }
    }
}

#[tokio::test]
async fn teams_share_what_is_theirs_and_no_more() {
    let gateway = Gateway::start(Data::Plan).await;
    let titles = async |token: &str| -> Vec<String> {
        let rows = gateway.ask(token, "/internal/v1/tasks?limit=1000").await;
        rows.rows().iter().map(|row| text(row, "title")).collect()
    };
    let of = |titles: &[String], number: u64| {
        let starts = [format!("AC-{number} "), format!("AC-{number}:")];
        titles
            .iter()
            .filter(|title| starts.iter().any(|start| title.starts_with(start)))
            .count()
    };
    let (amira, ben, chloe) = (
        titles("token-e1").await,
        titles("token-e2").await,
        titles("token-e3").await,
    );
    // AC-1 belongs to `platform`, AC-11 to `research`; each has four tasks that say so in four ways.
    assert_eq!((of(&amira, 1), of(&ben, 1), of(&chloe, 1)), (4, 4, 0));
    assert_eq!((of(&amira, 11), of(&ben, 11), of(&chloe, 11)), (0, 4, 4));
}

#[tokio::test]
async fn notes_and_memory_are_the_owners_only() {
    let gateway = Gateway::start(Data::Plan).await;
    for collection in ["notes", "insights", "preferences"] {
        let path = format!("/internal/v1/{collection}?limit=1000");
        let rows = gateway.ask("token-e3", &path).await.rows();
        assert!(!rows.is_empty());
        for row in rows {
            assert_eq!(text(&row, "ownerId"), plan::CHLOE);
        }
    }
    for path in ["/api/memory/insights", "/api/memory/preferences"] {
        let rows = gateway.ask("token-e3", path).await.rows();
        assert_eq!(rows.len(), 2);
        for row in rows {
            assert_eq!(text(&row, "userId"), plan::CHLOE);
        }
    }
}

#[tokio::test]
async fn mission_tasks_are_per_user_and_need_the_mission() {
    let gateway = Gateway::start(Data::Plan).await;
    let own = plan::id(Collection::Missions, 11);
    let path = format!("/api/missions/{own}/tasks");
    let rows = gateway.ask("token-e1", &path).await.rows();
    assert_eq!(rows.len(), 2);
    let with_notes = rows.iter().filter(|row| row["notes"].is_string()).count();
    assert_eq!(with_notes, 1);
    assert!(rows.iter().all(|row| row["missionId"] == own));
    let stranger = gateway.ask("token-e2", &path).await;
    assert_eq!(stranger.status, StatusCode::NOT_FOUND);
    let notes = gateway.ask("token-e1", "/internal/v1/notes").await.rows();
    assert!(notes.iter().all(|row| row["text"].is_string()));
}

#[tokio::test]
async fn get_is_404_for_what_is_not_there_and_for_what_is_not_yours() {
    let gateway = Gateway::start(Data::Plan).await;
    let research = plan::id(Collection::Tasks, 11);
    for base in ["/internal/v1", "/api"] {
        let path = format!("{base}/tasks/{research}");
        let seen = gateway.ask("token-e3", &path).await;
        assert_eq!(text(&seen.json(), "id"), research);
        let hidden = gateway.ask("token-e1", &path).await;
        let absent = gateway
            .ask("token-e1", &format!("{base}/tasks/absent"))
            .await;
        assert_eq!(hidden.status, StatusCode::NOT_FOUND);
        assert_eq!((hidden.status, &hidden.body), (absent.status, &absent.body));
    }
}

#[tokio::test]
async fn facts_name_teams_projects_and_missions_in_pages() {
    let gateway = Gateway::start(Data::Plan).await;
    let whole = gateway.ask("token-e2", "/internal/v1/facts").await.json();
    assert_eq!(
        whole["teams"],
        serde_json::json!([{"id": "platform"}, {"id": "research"}])
    );
    assert_eq!(whole["projects"].as_array().unwrap().len(), 3);
    assert_eq!(whole["missions"].as_array().unwrap().len(), 8);
    assert!(whole["next"].is_null());
    let mut joined = serde_json::json!({"teams": [], "projects": [], "missions": []});
    let mut path = "/internal/v1/facts?limit=2".to_owned();
    loop {
        let page = gateway.ask("token-e2", &path).await.json();
        for kind in ["teams", "projects", "missions"] {
            let list = joined[kind].as_array_mut().unwrap();
            list.extend(page[kind].as_array().unwrap().iter().cloned());
        }
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("/internal/v1/facts?limit=2&after={next}");
    }
    for kind in ["teams", "projects", "missions"] {
        assert_eq!(joined[kind], whole[kind]);
    }
}

#[tokio::test]
async fn narrowing_is_the_whole_list_once_given() {
    let gateway = Gateway::start(Data::Plan).await;
    let count = async |query: &str| {
        let path = format!("/internal/v1/tasks?limit=1000&{query}");
        gateway.ask("token-e2", &path).await.rows().len()
    };
    let personal = count("personal=true").await;
    let platform = count("team=platform&personal=false").await;
    let research = count("team=research&personal=false").await;
    assert_eq!(personal, 2);
    assert_eq!((platform, research), (28, 24));
    assert_eq!(count("").await, personal + platform + research);
    assert_eq!(count("team=platform").await, platform + personal);
    assert_eq!(count("team=platform&team=research").await, 54);
    assert_eq!(count("personal=false").await, 0);
    // A team the user is not in adds nothing.
    assert_eq!(count("team=finance&personal=false").await, 0);
}

#[tokio::test]
async fn notes_are_narrowed_by_their_mission() {
    let gateway = Gateway::start(Data::Plan).await;
    let missions = async |query: &str| -> Vec<String> {
        let path = format!("/internal/v1/notes?{query}");
        let rows = gateway.ask("token-e2", &path).await.rows();
        rows.iter().map(|row| text(row, "missionId")).collect()
    };
    let own = plan::id(Collection::Missions, 12);
    assert_eq!(missions("personal=true").await, vec![own.clone()]);
    let research = missions("team=research&personal=false").await;
    let m4_or_m7 = [4, 7].map(|number| plan::id(Collection::Missions, number));
    assert!(!research.is_empty());
    assert!(research.iter().all(|mission| m4_or_m7.contains(mission)));
    assert!(missions("").await.len() > research.len() + 1);
}

#[tokio::test]
async fn filters_are_equalities() {
    let gateway = Gateway::start(Data::Plan).await;
    let mission = plan::id(Collection::Missions, 3);
    for path in [
        format!("/internal/v1/tasks?missionId={mission}&status=in_progress"),
        format!("/api/tasks?missionId={mission}&status=in_progress&unknown=1"),
    ] {
        let rows = gateway.ask("token-e1", &path).await.rows();
        assert_eq!(rows.len(), 4, "{path}");
        for row in rows {
            assert_eq!(text(&row, "missionId"), mission);
            assert_eq!(text(&row, "status"), "in_progress");
        }
    }
}

#[tokio::test]
async fn malformed_questions_are_refused() {
    let gateway = Gateway::start(Data::Plan).await;
    for query in [
        "limit=0",
        "limit=10002",
        "limit=ten",
        "limit=1&limit=2",
        "before=yesterday,1",
        "before=2026-04-09T18:00:00.000Z",
        "personal=perhaps",
        "status=open&status=done",
        "Team=platform",
        "cursor=abc",
    ] {
        let path = format!("/internal/v1/tasks?{query}");
        let answer = gateway.ask("token-e1", &path).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{query}");
        assert_eq!(answer.json()["error"]["code"], "invalid_request");
    }
}

#[tokio::test]
async fn credentials_have_no_path() {
    let gateway = Gateway::start(Data::Plan).await;
    for name in ["credentials", "api_keys", "users", "nothing"] {
        for base in ["/internal/v1", "/api"] {
            let answer = gateway.ask("token-e1", &format!("{base}/{name}")).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND);
        }
    }
}

#[tokio::test]
async fn only_get_and_head_are_answered() {
    let gateway = Gateway::start(Data::Plan).await;
    let bearer = ("authorization", "Bearer token-e1");
    for path in [
        "/internal/v1/tasks",
        "/api/tasks",
        "/internal/v1/health",
        "/x",
    ] {
        for method in [Method::POST, Method::PUT, Method::DELETE, Method::OPTIONS] {
            let answer = gateway.send(method, path, &[bearer]).await;
            assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
            assert_eq!(answer.headers["allow"], "GET, HEAD");
        }
    }
    let head = gateway.send(Method::HEAD, "/api/tasks", &[bearer]).await;
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
}

#[tokio::test]
async fn who_may_not_ask() {
    let gateway = Gateway::start(Data::Plan).await;
    for path in ["/internal/v1/whoami", "/internal/v1/tasks", "/api/tasks"] {
        let banned = gateway.ask("token-e4", path).await;
        assert_eq!(banned.status, StatusCode::FORBIDDEN);
        let unknown = gateway.ask("token-zz", path).await;
        assert_eq!(unknown.status, StatusCode::UNAUTHORIZED);
        let nobody = gateway.send(Method::GET, path, &[]).await;
        assert_eq!(nobody.status, StatusCode::UNAUTHORIZED);
        let twice = [
            ("authorization", "Bearer token-e1"),
            ("authorization", "Bearer token-e2"),
        ];
        let twice = gateway.send(Method::GET, path, &twice).await;
        assert_eq!(twice.status, StatusCode::UNAUTHORIZED);
    }
    gateway.behave(r#"{"banned": ["e2"]}"#).await;
    let banned = gateway.ask("token-e2", "/internal/v1/whoami").await;
    assert_eq!(banned.status, StatusCode::FORBIDDEN);
    let amira = gateway.ask("token-e1", "/internal/v1/whoami").await;
    assert_eq!(amira.json(), serde_json::json!({"userId": plan::AMIRA}));
}

#[tokio::test]
async fn the_home_gateway_has_one_user_with_a_few_tasks() {
    let gateway = Gateway::start(Data::Home).await;
    let rows = gateway.ask("token-amira", "/api/tasks").await.rows();
    assert_eq!(rows.len(), 4);
    assert!(rows.iter().all(|row| row["userId"] == plan::HOME));
    let teams = gateway.ask("token-amira", "/api/teams").await;
    assert_eq!(teams.json(), serde_json::json!([]));
}

#[tokio::test]
async fn every_path_and_parameter_of_the_published_contract_is_served() {
    let contract = include_str!("../../../docs/gateway/internal-v1.openapi.yaml");
    let gateway = Gateway::start(Data::Plan).await;
    let (mut path, mut paths, mut parameters) = ("", 0, 0);
    for line in contract.lines() {
        if let Some(key) = line.strip_prefix("  /") {
            path = key.trim_end_matches(':');
            paths += usize::from(!path.contains('{'));
            let concrete = path.replace("{collection}", "tasks");
            let concrete = concrete.replace("{id}", &plan::id(Collection::Tasks, 1));
            let answer = gateway.ask("token-e1", &format!("/{concrete}")).await;
            assert_eq!(answer.status, StatusCode::OK, "{path}");
        }
        let reference = line
            .trim()
            .strip_prefix("- $ref: \"#/components/parameters/");
        if let Some(name) = reference {
            let name = name.trim_end_matches('"');
            let value = match name {
                "limit" => "1",
                "before" => "2026-04-09T18:00:00.000Z,x",
                "personal" => "true",
                _ => "any",
            };
            let asked = format!("/{path}?{name}={value}");
            let answer = gateway.ask("token-e1", &asked).await;
            assert_eq!(answer.status, StatusCode::OK, "{asked}");
            parameters += 1;
        }
    }
    assert_eq!((paths, parameters), (9, 27));
}
