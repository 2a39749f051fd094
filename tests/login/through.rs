//! psql through greet and dial.

use pgsluice::{
    config::{AuthMethod, TlsMode, TlsSide},
    wire::{md5, scram::Verifier},
};

use super::{
    cluster::cluster,
    front::{Front, Setup, psql, side},
};

const METHOD: AuthMethod = AuthMethod::ScramSha256;
const WHO: &str = "SELECT current_user";

#[tokio::test]
async fn the_client_key_logs_in_to_the_server_and_no_password_exists() {
    let cluster = cluster();
    let front = Front::start(&cluster, &Setup::new(&cluster, METHOD)).await;
    for options in [
        "sslmode=disable",
        "sslmode=require",
        "sslmode=require channel_binding=require",
        "sslmode=require channel_binding=disable",
    ] {
        let said = front
            .psql(&format!("user=app password=secret {options}"), WHO)
            .await;
        assert_eq!(said.as_deref(), Ok("app"), "{options}");
    }
    let outcomes = &front.seen.lock().unwrap().outcomes;
    assert_eq!(
        outcomes.as_slice(),
        &[Ok("scram"), Ok("scram"), Ok("scram"), Ok("scram")]
    );
}

#[tokio::test]
async fn users_of_the_file_log_in_by_password_and_by_verifier() {
    let cluster = cluster();
    let verifier = Verifier::derive("secret", b"salt and pepper!", 4096).to_text();
    cluster.sql(&format!(
        "DROP ROLE IF EXISTS listed; CREATE ROLE listed LOGIN PASSWORD '{}'",
        *verifier
    ));
    let mut setup = Setup::new(&cluster, METHOD)
        .user("app", "secret")
        .user("listed", &verifier);
    setup.auth.user = None;
    let front = Front::start(&cluster, &setup).await;
    for user in ["app", "listed"] {
        let said = front
            .psql(&format!("user={user} password=secret"), WHO)
            .await;
        assert_eq!(said.as_deref(), Ok(user));
        let said = front
            .psql(&format!("user={user} password=wrong"), WHO)
            .await
            .unwrap_err();
        assert!(
            said.contains(&format!(
                "password authentication failed for user \"{user}\""
            )),
            "{said}"
        );
    }
}

#[tokio::test]
async fn wrong_unknown_expired_and_passwordless_users_get_the_same_answer() {
    let cluster = cluster();
    let front = Front::start(&cluster, &Setup::new(&cluster, METHOD)).await;
    for (user, password) in [
        ("app", "wrong"),
        ("nobody", "secret"),
        ("expired", "secret"),
        ("trusted", "secret"),
        ("md5user", "secret"),
        ("nologin", "wrong"),
        ("boss", "wrong"),
    ] {
        let said = front
            .psql(&format!("user={user} password={password}"), WHO)
            .await
            .unwrap_err();
        let expected = format!("FATAL:  password authentication failed for user \"{user}\"");
        assert!(said.ends_with(&expected), "{said}");
    }
    let said = front.psql("user=forever password=secret", WHO).await;
    assert_eq!(said.as_deref(), Ok("forever"));
}

#[tokio::test]
async fn superusers_replication_roles_and_nologin_roles_are_kept_out_unless_allowed() {
    let cluster = cluster();
    let front = Front::start(&cluster, &Setup::new(&cluster, METHOD)).await;
    for (user, expected) in [
        ("boss", "may not log in through the proxy"),
        ("streamer", "may not log in through the proxy"),
        ("nologin", "is not permitted to log in"),
    ] {
        let said = front
            .psql(&format!("user={user} password=secret"), WHO)
            .await
            .unwrap_err();
        assert!(said.contains(expected), "{said}");
    }
    // Kept out by the greeting, not by the server behind it.
    assert!(
        front
            .seen
            .lock()
            .unwrap()
            .outcomes
            .iter()
            .all(Result::is_err)
    );
    let allowed = Setup::new(&cluster, METHOD).allow("boss").allow("nologin");
    let front = Front::start(&cluster, &allowed).await;
    assert_eq!(
        front
            .psql("user=boss password=secret", WHO)
            .await
            .as_deref(),
        Ok("boss")
    );
    assert!(
        front
            .psql("user=streamer password=secret", WHO)
            .await
            .is_err()
    );
    assert!(
        front
            .psql("user=nologin password=secret", WHO)
            .await
            .is_err()
    );
}

#[tokio::test]
async fn roles_and_passwords_made_in_sql_count_at_once() {
    let cluster = cluster();
    let front = Front::start(&cluster, &Setup::new(&cluster, METHOD)).await;
    let login = async |password: &str| {
        front
            .psql(&format!("user=fresh password={password}"), WHO)
            .await
            .is_ok()
    };
    cluster.sql("DROP ROLE IF EXISTS fresh");
    assert!(!login("one").await);
    cluster.sql("CREATE ROLE fresh LOGIN PASSWORD 'one'");
    assert!(login("one").await);
    cluster.sql("ALTER ROLE fresh PASSWORD 'two'");
    assert!(login("two").await);
    assert!(!login("one").await);
    cluster.sql("ALTER ROLE fresh VALID UNTIL '2001-01-01'");
    assert!(!login("two").await);
    cluster.sql("DROP ROLE fresh");
    assert!(!login("two").await);
}

#[tokio::test]
async fn md5_trust_and_certificates_log_in_where_they_are_configured() {
    let cluster = cluster();
    let hash = md5::hash("md5user", "secret");
    let setup = Setup::new(&cluster, AuthMethod::Md5)
        .user("md5user", &hash)
        .user("clear", "secret");
    let front = Front::start(&cluster, &setup).await;
    for user in ["md5user", "clear", "app"] {
        let said = front
            .psql(&format!("user={user} password=secret"), WHO)
            .await;
        assert_eq!(said.as_deref(), Ok(user));
        assert!(
            front
                .psql(&format!("user={user} password=wrong"), WHO)
                .await
                .is_err(),
            "{user}"
        );
    }
    let front = Front::start(&cluster, &Setup::new(&cluster, AuthMethod::Trust)).await;
    assert_eq!(
        front.psql("user=trusted", WHO).await.as_deref(),
        Ok("trusted")
    );
    let said = front.psql("user=boss", WHO).await.unwrap_err();
    assert!(said.contains("may not log in"), "{said}");
    let said = front.psql("user=nobody", WHO).await.unwrap_err();
    assert!(said.contains("role \"nobody\" does not exist"), "{said}");
}

#[tokio::test]
async fn a_certificates_common_name_is_the_user() {
    let cluster = cluster();
    if !cluster.has_tls {
        return;
    }
    let mut setup = Setup::new(&cluster, AuthMethod::Cert);
    setup.client = side(&cluster, TlsMode::VerifyFull, Some("proxy"), true);
    setup.server = side(&cluster, TlsMode::VerifyFull, Some("certified"), true);
    let front = Front::start(&cluster, &setup).await;
    let (cert, key) = (cluster.path("certified.crt"), cluster.path("certified.key"));
    let certified = format!("sslmode=require sslcert={cert} sslkey={key}");
    let said = front
        .psql(&format!("user=certified {certified}"), WHO)
        .await;
    assert_eq!(said.as_deref(), Ok("certified"));
    let said = front
        .psql(&format!("user=app {certified}"), WHO)
        .await
        .unwrap_err();
    assert!(said.contains("certificate authentication failed"), "{said}");
    assert!(
        front
            .psql("user=certified sslmode=require", WHO)
            .await
            .is_err()
    );
    let said = front
        .psql("user=certified sslmode=disable", WHO)
        .await
        .unwrap_err();
    assert!(
        said.contains("connections without TLS are not allowed"),
        "{said}"
    );
}

#[tokio::test]
async fn tls_is_demanded_verified_and_without_a_hash_offers_no_plus() {
    let cluster = cluster();
    let mut setup = Setup::new(&cluster, METHOD);
    setup.client.mode = TlsMode::Require;
    let front = Front::start(&cluster, &setup).await;
    let said = front
        .psql("user=app password=secret sslmode=disable", WHO)
        .await
        .unwrap_err();
    assert!(
        said.contains("connections without TLS are not allowed"),
        "{said}"
    );
    let ca = cluster.path("ca.crt");
    let verified = format!("user=app password=secret sslmode=verify-full sslrootcert={ca}");
    assert_eq!(front.psql(&verified, WHO).await.as_deref(), Ok("app"));

    setup.client = side(&cluster, TlsMode::Prefer, Some("ed25519"), false);
    let front = Front::start(&cluster, &setup).await;
    let login = "user=app password=secret sslmode=require";
    assert_eq!(
        front
            .psql(&format!("{login} channel_binding=disable"), WHO)
            .await
            .as_deref(),
        Ok("app")
    );
    assert!(
        front
            .psql(&format!("{login} channel_binding=require"), WHO)
            .await
            .is_err()
    );

    setup.client = TlsSide {
        mode: TlsMode::Disable,
        cert: None,
        key: None,
        ca: None,
    };
    let front = Front::start(&cluster, &setup).await;
    assert!(front.psql(login, WHO).await.is_err());
    assert_eq!(
        front
            .psql("user=app password=secret sslmode=prefer", WHO)
            .await
            .as_deref(),
        Ok("app")
    );
}

#[tokio::test]
async fn startup_settings_reach_the_server_and_are_the_reset_values() {
    let cluster = cluster();
    let front = Front::start(&cluster, &Setup::new(&cluster, METHOD)).await;
    let connection = r"user=app password=secret application_name=me options='-c work_mem=7MB --app.tenant=a\\ b'";
    let sql = "SET work_mem = '1MB'; RESET work_mem; \
               SELECT concat_ws(',', current_setting('work_mem'), current_setting('app.tenant'), \
               current_setting('application_name'))";
    let said = front.psql(connection, sql).await.unwrap();
    assert!(said.ends_with("7MB,a b,me"), "{said}");
    let said = front
        .psql("user=app password=secret options='-c work_mem=much'", WHO)
        .await
        .unwrap_err();
    assert!(
        said.contains("invalid value for parameter \"work_mem\""),
        "{said}"
    );
    let said = front
        .psql("user=app password=secret options='-x'", WHO)
        .await
        .unwrap_err();
    assert!(
        said.contains("invalid command-line argument for server process: -x"),
        "{said}"
    );
}

#[tokio::test]
async fn a_clients_cancel_reaches_the_server() {
    let cluster = cluster();
    let front = Front::start(&cluster, &Setup::new(&cluster, METHOD)).await;
    let sql = "SELECT pg_sleep(60)";
    let connection = format!(
        "host=127.0.0.1 port={} dbname=postgres user=app password=secret",
        front.port
    );
    let mut psql = tokio::process::Command::new("psql")
        .args(["-X", "-w", "-c", sql, &connection])
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let pid = nix::unistd::Pid::from_raw(psql.id().unwrap() as i32);
    let cancelled = async {
        loop {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            // Before its login, SIGINT would end psql itself.
            let greeted = !front.seen.lock().unwrap().outcomes.is_empty();
            let running = super::front::psql(
                cluster.port,
                "user=app password=secret",
                "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'",
            )
            .await;
            if greeted && running.as_deref() == Ok("1") {
                nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
                return psql.wait().await.unwrap();
            }
        }
    };
    let status = tokio::time::timeout(super::front::PATIENCE, cancelled)
        .await
        .expect("never cancelled");
    assert_eq!(status.code(), Some(1));
    assert!(front.seen.lock().unwrap().outcomes.contains(&Ok("cancel")));
}

#[tokio::test]
async fn a_lookup_that_cannot_be_had_is_57p03_not_a_wrong_password() {
    let cluster = cluster();
    let mut setup = Setup::new(&cluster, METHOD);
    setup.auth.query = "SELECT nonsense".into();
    let front = Front::start(&cluster, &setup).await;
    let said = psql(front.port, "user=app password=secret", WHO)
        .await
        .unwrap_err();
    assert!(
        said.contains("no server is available to check the password"),
        "{said}"
    );
}
