//! Through the login, on a real database, with a clock that stands still until the test moves it.

use std::collections::BTreeMap;

use axum::http::Method;
use serde_json::json;

use crate::testing::{Answer, TestCloud, request};

const OFFICE: &str = "192.0.2.1";

async fn sign_in(cloud: &TestCloud, from: &str, username: &str, password: &str) -> Answer {
    let body = json!({"username": username, "password": password}).to_string();
    cloud.send_from(from, request(Method::POST, "/v1/auth/login", &[], body)).await
}

async fn owner_signs_in(cloud: &TestCloud, from: &str) -> Answer {
    let body = cloud.credentials().to_string();
    cloud.send_from(from, request(Method::POST, "/v1/auth/login", &[], body)).await
}

/// The seconds that a delayed attempt is told to wait.
#[track_caller]
fn wait(answer: &Answer) -> i64 {
    answer.expect_problem(429, "sign_in_delayed");
    answer.headers["retry-after"].to_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn each_failure_makes_the_next_attempt_wait_longer() {
    let cloud = TestCloud::start().await;
    for name in ["admin", "nobody", "No\0body", ""] {
        for _ in 0..4 {
            sign_in(&cloud, OFFICE, name, "guess").await.expect_problem(401, "invalid_credentials");
        }
        for seconds in [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300] {
            let delayed = sign_in(&cloud, OFFICE, name, "guess").await;
            assert_eq!(wait(&delayed), seconds, "{name:?}");
            cloud.pass(seconds - 1);
            assert_eq!(wait(&sign_in(&cloud, OFFICE, name, "guess").await), 1, "{name:?}");
            cloud.pass(1);
            sign_in(&cloud, OFFICE, name, "guess").await.expect_problem(401, "invalid_credentials");
        }
    }
}

#[tokio::test]
async fn a_delayed_attempt_is_refused_whatever_the_password_is() {
    let cloud = TestCloud::start().await;
    for _ in 0..4 {
        sign_in(&cloud, OFFICE, "admin", "guess").await.expect(401);
    }
    let right = owner_signs_in(&cloud, OFFICE).await;
    let wrong = sign_in(&cloud, OFFICE, "admin", "guess").await;
    let nobody = {
        for _ in 0..4 {
            sign_in(&cloud, OFFICE, "nobody", "guess").await.expect(401);
        }
        sign_in(&cloud, OFFICE, "nobody", "guess").await
    };
    let look = |answer: &Answer| {
        let mut body = answer.expect_problem(429, "sign_in_delayed");
        body["request_id"].take();
        (body, answer.headers["retry-after"].clone())
    };
    assert_eq!(look(&right), look(&wrong));
    assert_eq!(look(&right), look(&nobody));
    let detail = look(&right).0["detail"].clone();
    assert_eq!(detail, "too many attempts have failed for this name; try again from 2026-06-01T12:00:01Z on");
}

/// How many failures the audit log tells of.
async fn failures(cloud: &TestCloud) -> i64 {
    sqlx::query_scalar("SELECT count(*) FROM audit_records WHERE outcome = 'failed'")
        .fetch_one(&cloud.app.pool)
        .await
        .unwrap()
}

#[tokio::test]
async fn of_the_refusals_of_one_wait_the_first_alone_is_recorded() {
    let cloud = TestCloud::start().await;
    for _ in 0..4 {
        sign_in(&cloud, OFFICE, "admin", "guess").await.expect(401);
    }
    for _ in 0..10 {
        wait(&sign_in(&cloud, OFFICE, "admin", "guess").await);
        wait(&owner_signs_in(&cloud, OFFICE).await);
    }
    assert_eq!(failures(&cloud).await, 4 + 1);
    cloud.pass(1);
    sign_in(&cloud, OFFICE, "admin", "guess").await.expect(401);
    for _ in 0..10 {
        wait(&sign_in(&cloud, OFFICE, "admin", "guess").await);
    }
    assert_eq!(failures(&cloud).await, 4 + 1 + 1 + 1);
}

#[tokio::test]
async fn refusals_are_recorded_once_however_many_networks_they_come_from() {
    let cloud = TestCloud::start().await;
    for number in 0..50 {
        sign_in(&cloud, &format!("198.51.100.{number}"), "admin", "guess").await;
    }
    assert_eq!(failures(&cloud).await, 21 + 1);
}

#[tokio::test]
async fn a_success_forgets_the_failures() {
    let cloud = TestCloud::start().await;
    for _ in 0..3 {
        for _ in 0..3 {
            sign_in(&cloud, OFFICE, "admin", "guess").await.expect(401);
        }
        owner_signs_in(&cloud, OFFICE).await.expect(200);
    }
    for _ in 0..6 {
        owner_signs_in(&cloud, OFFICE).await.expect(200);
        owner_signs_in(&cloud, "198.51.100.1").await.expect(200);
    }
}

#[tokio::test]
async fn an_hour_forgets_the_failures() {
    let cloud = TestCloud::start().await;
    let fail_until_delayed = async || {
        let mut failures = 0;
        while sign_in(&cloud, OFFICE, "admin", "guess").await.status == 401 {
            failures += 1;
        }
        failures
    };
    assert_eq!(fail_until_delayed().await, 4);
    cloud.pass(3599);
    assert_eq!(fail_until_delayed().await, 1);
    cloud.pass(3600);
    assert_eq!(fail_until_delayed().await, 4);
}

#[tokio::test]
async fn guesses_at_once_are_counted_one_by_one() {
    let cloud = TestCloud::start().await;
    let guesses = (0..40).map(|_| sign_in(&cloud, OFFICE, "admin", "guess"));
    let mut statuses = BTreeMap::new();
    for answer in futures_util::future::join_all(guesses).await {
        *statuses.entry(answer.status.as_u16()).or_insert(0) += 1;
    }
    assert_eq!(statuses, BTreeMap::from([(401, 4), (429, 36)]));
}

#[tokio::test]
async fn an_attempt_that_never_ends_counts_as_failed() {
    let cloud = TestCloud::start().await;
    for _ in 0..4 {
        let address = OFFICE.parse().unwrap();
        let mut tx = cloud.app.begin().await.unwrap();
        let admission = super::admit(&mut tx, "admin", address, cloud.app.clock.now()).await.unwrap();
        assert!(matches!(admission, super::Admission::Open(_)));
        tx.commit().await.unwrap();
    }
    assert_eq!(wait(&owner_signs_in(&cloud, OFFICE).await), 1);
}

#[tokio::test]
async fn nobody_can_keep_a_user_out_from_elsewhere() {
    let cloud = TestCloud::start().await;
    owner_signs_in(&cloud, OFFICE).await.expect(200);
    // A thousand networks, as far as this test goes.
    for number in 0..30 {
        sign_in(&cloud, &format!("198.51.100.{number}"), "admin", "guess").await;
    }
    let stranger = sign_in(&cloud, "203.0.113.1", "admin", "guess").await;
    assert!(wait(&stranger) > 0, "together they are slowed down, too");
    owner_signs_in(&cloud, OFFICE).await.expect(200);
    // From a place where the owner has not been lately, the wait is short.
    let delay = wait(&owner_signs_in(&cloud, "2001:db8::1").await);
    cloud.pass(delay);
    owner_signs_in(&cloud, "2001:db8::1").await.expect(200);
    // And that place is familiar now, the whole /64 of it.
    for number in 0..30 {
        sign_in(&cloud, &format!("198.51.100.{number}"), "admin", "guess").await;
    }
    owner_signs_in(&cloud, "2001:db8::2").await.expect(200);
    // But not for ever.
    cloud.pass(31 * 24 * 3600);
    for number in 0..30 {
        sign_in(&cloud, &format!("198.51.100.{number}"), "admin", "guess").await;
    }
    wait(&owner_signs_in(&cloud, OFFICE).await);
}

#[tokio::test]
async fn many_networks_together_guess_once_a_minute() {
    let cloud = TestCloud::start().await;
    let mut guesses = 0;
    for round in 0..200 {
        let from = format!("198.51.{}.{}", round / 100, round % 100);
        guesses += u32::from(sign_in(&cloud, &from, "admin", "guess").await.status == 401);
        cloud.pass(6);
    }
    // In twenty minutes: twenty free ones, six until the wait is a minute, and then one a minute.
    assert!((35..=47).contains(&guesses), "{guesses}");
}

#[tokio::test]
async fn what_makes_no_difference_is_removed() {
    let cloud = TestCloud::start().await;
    let rows = async || -> i64 {
        let mut conn = cloud.app.pool.acquire().await.unwrap();
        super::forget_old(&mut conn, cloud.app.clock.now()).await.unwrap();
        sqlx::query_scalar("SELECT count(*) FROM sign_in_backoff").fetch_one(&mut *conn).await.unwrap()
    };
    sign_in(&cloud, OFFICE, "nobody", "guess").await.expect(401);
    owner_signs_in(&cloud, OFFICE).await.expect(200);
    assert_eq!(rows().await, 4);
    cloud.pass(3601);
    assert_eq!(rows().await, 1, "the familiar network");
    cloud.pass(30 * 24 * 3600);
    assert_eq!(rows().await, 0);
}

#[tokio::test]
async fn right_sign_ins_at_once_wait_for_each_other_and_for_no_delay_but_guesses_do() {
    let cloud = TestCloud::start().await;
    let together = |count| futures_util::future::join_all((0..count).map(|_| owner_signs_in(&cloud, OFFICE)));
    assert!(together(12).await.iter().all(|answer| answer.status == 200));
    let guesses = (0..12).map(|_| sign_in(&cloud, OFFICE, "admin", "guess"));
    let statuses: Vec<_> =
        futures_util::future::join_all(guesses).await.iter().map(|answer| answer.status.as_u16()).collect();
    let count = |wanted| statuses.iter().filter(|status| **status == wanted).count();
    assert_eq!((count(401), count(429)), (4, 8), "{statuses:?}");
    // The right password is no way around.
    assert!(together(3).await.iter().all(|answer| answer.status == 429));
}
