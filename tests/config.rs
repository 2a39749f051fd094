//! Configuration files, good and bad: exact messages, exit codes of the binary, and the commented default file.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output},
};

use pgsluice::config::{
    self, AuthMethod, Config, Consistency, LogFormat, Node, PoolMode, PrimaryReads,
    ReadTransactions, Route, Rule, RulePlace, Ruled, TlsMode, Writes,
};

/// What a file must have: a node, and somebody who may log in.
const BASE: &str =
    "[[node]]\nname = \"pg1\"\nhost = \"db1\"\n[[user]]\nname = \"app\"\npassword = \"hunter2\"\n";

fn env(name: &str) -> Option<String> {
    (name == "APP_PASSWORD").then(|| "from-env".to_owned())
}

fn parse(text: &str) -> Result<config::Loaded, config::ConfigErrors> {
    config::parse(Path::new("p.toml"), text, &env)
}

/// The file's problems, one line each; [`BASE`] stands behind `text`.
fn problems(text: &str) -> Vec<String> {
    let errors = parse(&format!("{text}\n{BASE}")).expect_err(text);
    errors.to_string().lines().map(str::to_owned).collect()
}

fn warnings(text: &str) -> Vec<String> {
    let loaded = parse(&format!("{text}\n{BASE}")).expect(text);
    loaded.warnings.iter().map(ToString::to_string).collect()
}

fn good(text: &str) -> Config {
    match parse(&format!("{text}\n{BASE}")) {
        Ok(loaded) => loaded.config,
        Err(errors) => panic!("{}", errors.render(false)),
    }
}

#[test]
fn a_short_file_has_the_defaults() {
    let config = good("");
    let expected = Config {
        nodes: vec![Node::at("pg1", "db1", 5432)],
        users: config.users.clone(),
        ..Config::default()
    };
    assert_eq!(config, expected);
    assert_eq!(config.users[0].password.reveal(), "hunter2");
}

#[test]
fn every_table_is_read() {
    let config = good(
        r#"
        workers = 3
        [http]
        listen = "off"
        [[listener]]
        listen = "[::1]:6000"
        route = "replica"
        mode = "session"
        writes = "primary"
        primary = "also"
        [pool]
        mode = "session"
        size = 7
        checkout_timeout = "1m 5s"
        [probe]
        user = "scout"
        password_env = "APP_PASSWORD"
        [[rule]]
        function = "app.report"
        place = "replica"
        [[rule]]
        table = "archive"
        place = "primary"
        [[login]]
        user = "report"
        database = "shop"
        consistency = "own-writes"
        [[login]]
        database = "shop"
        place = "primary"
        max_staleness = "1s"
        transactions = "replica"
        [limits]
        idle_timeout = "5m"
        idle_transaction_timeout = "0s"
        [auth]
        method = "md5"
        allow = ["postgres", "app@shop from 10.0.0.0/8"]
        [tls.server]
        mode = "verify-full"
        [log]
        format = "json"
        "#,
    );
    assert_eq!((config.workers, config.http.listen), (3, None));
    let listener = &config.listeners[0];
    assert_eq!(listener.listen.to_string(), "[::1]:6000");
    assert_eq!(
        (listener.route, listener.mode),
        (Route::Replica, PoolMode::Session)
    );
    assert_eq!(
        (listener.writes, listener.primary),
        (Writes::Primary, PrimaryReads::Also)
    );
    assert_eq!((config.pool.mode, config.pool.size), (PoolMode::Session, 7));
    assert_eq!(config.pool.checkout_timeout.as_secs(), 65);
    assert_eq!(config.probe.password.as_ref().unwrap().reveal(), "from-env");
    let report = Rule {
        of: Ruled::Function("app.report".into()),
        place: RulePlace::Replica,
    };
    let archive = Rule {
        of: Ruled::Table("archive".into()),
        place: RulePlace::Primary,
    };
    assert_eq!(config.rules, [report, archive]);
    let reads = config.reads_of("report", "shop");
    assert_eq!(
        (reads.consistency, reads.place, reads.transactions),
        (
            Consistency::OwnWrites,
            RulePlace::Primary,
            ReadTransactions::Replica
        )
    );
    assert_eq!(reads.max_staleness.as_secs(), 1);
    assert_eq!(config.limits.idle_timeout.unwrap().as_secs(), 300);
    assert_eq!(config.limits.idle_transaction_timeout, None);
    assert_eq!(config.auth.method, AuthMethod::Md5);
    assert_eq!(config.auth.allow[1].net.unwrap().to_string(), "10.0.0.0/8");
    assert_eq!(config.tls.server.mode, TlsMode::VerifyFull);
    assert_eq!(config.log.format, LogFormat::Json);
}

#[test]
fn a_listener_takes_its_pool_mode_from_the_pool() {
    let listener = "[[listener]]\nlisten = \"127.0.0.1:1\"\nroute = \"primary\"\n";
    let config = good(&format!("{listener}[pool]\nmode = \"session\""));
    assert_eq!(config.listeners[0].mode, PoolMode::Session);
}

#[test]
fn each_mistake_is_named_with_its_place_and_what_was_expected() {
    const DURATION: &str = r#"expected a duration such as "50ms", "10s" or "1h 30m""#;
    const ADDRESS: &str =
        r#"expected an IP address and a port such as "127.0.0.1:5000" or "[::1]:5000""#;
    let cases = [
        ("workers = \"many\"", "1:11: bad value for `workers`: expected a whole number, found a string".to_owned()),
        ("workers = -1", "1:11: bad value for `workers`: expected a number from 0 to 1024".to_owned()),
        ("worker = 1", "1:1: unknown key `worker` at the top: expected one of `workers`, `zone`, `http`, `listener`, `node`, `patroni`, `repmgr`, `pool`, `probe`, `reads`, `rule`, `login`, `failover`, `limits`, `auth`, `user`, `tls`, `log`; did you mean `workers`?".to_owned()),
        ("[http]\nlisten = 7000", "2:10: bad value for `http.listen`: expected an IP address and a port such as \"127.0.0.1:7000\", or \"off\", found a number".to_owned()),
        ("[[login]]\nplace = \"primary\"", "1:1: `login[0].user` is missing: expected `user`, `database` or both; what holds for all is in `[reads]`".to_owned()),
        ("[[login]]\nuser = \"a\"\n[[login]]\nuser = \"a\"", "3:1: `login[1]` is about the same logins as `login[0]`: expected one for each user and database".to_owned()),
        ("[[login]]\nuser = \"a\"\nmax_staleness = \"11s\"", "3:17: bad value for `login[0].max_staleness`: expected at most `reads.max_staleness`: a replica that is further behind is out of rotation".to_owned()),
        ("[[login]]\nuser = \"a\"\nplace = \"here\"", "3:9: `here` is no value of `login[0].place`: expected `primary` or `replica`".to_owned()),
        ("[http]\nport = 7000", "2:1: unknown key `port` in `http`: expected `listen`".to_owned()),
        ("[pool]\nmode = \"statement\"", "2:8: `statement` is no value of `pool.mode`: expected `session` or `transaction`".to_owned()),
        ("[pool]\nmode = \"trnsaction\"", "2:8: `trnsaction` is no value of `pool.mode`: expected `session` or `transaction`; did you mean `transaction`?".to_owned()),
        ("[pool]\nsize = 0", "2:8: bad value for `pool.size`: expected a number from 1 to 10000".to_owned()),
        ("[pool]\nsize = 1.5", "2:8: bad value for `pool.size`: expected a whole number, found a number with a fraction".to_owned()),
        ("[pool]\ncheckout_timeout = \"10\"", format!("2:20: bad value for `pool.checkout_timeout`: {DURATION}")),
        ("[pool]\ncheckout_timeout = 10", format!("2:20: bad value for `pool.checkout_timeout`: {DURATION}, found a number")),
        ("[pool]\ncheckout_timeout = \"0s\"", "2:20: bad value for `pool.checkout_timeout`: expected a duration from \"1ms\" to \"30days\"".to_owned()),
        ("[pool]\nmode = 3", "2:8: bad value for `pool.mode`: expected a string".to_owned()),
        ("[pool]\nmode = {}", "2:8: bad value for `pool.mode`: expected a string".to_owned()),
        ("listener = [[\"127.0.0.1:1\", \"primary\"]]", "1:12: bad value for `listener`: expected a table, found a list".to_owned()),
        ("[listener]\nroute = \"primary\"", "1:1: bad value for `listener`: expected a list, found a table".to_owned()),
        ("[[pool]]\nsize = 1", "1:1: bad value for `pool`: expected a table, found a list".to_owned()),
        ("[probe]\ninterval = \"5ms\"\nbusy_interval = \"6ms\"", "3:17: `probe.busy_interval` is longer than `probe.interval`: expected probes to be more frequent while sessions wait".to_owned()),
        ("[probe]\nuser = \"\"", "2:8: bad value for `probe.user`: expected a name that is not empty".to_owned()),
        ("[reads]\nconsistency = \"sesion\"", "2:15: `sesion` is no value of `reads.consistency`: expected one of `eventual`, `own-writes`, `session`, `database`; did you mean `session`?".to_owned()),
        ("[[rule]]\nfunction = \"f\"", "1:1: `rule[0].place` is missing: expected `primary` or `replica`".to_owned()),
        ("[[rule]]\nplace = \"primary\"", "1:1: `rule[0].function` is missing: expected `function`, `table` or `statement`, whichever the rule is about".to_owned()),
        ("[[rule]]\nfunction = \"f\"\ntable = \"t\"\nplace = \"primary\"", "3:9: a rule is about one thing only: expected one of `function`, `table` and `statement`".to_owned()),
        ("[[rule]]\nfunction = \"f(int)\"\nplace = \"primary\"", "2:12: bad value for `rule[0].function`: expected a function as \"name\" or \"schema.name\"".to_owned()),
        ("[[rule]]\nstatement = \"select 1\"\nplace = \"primary\"", "2:13: bad value for `rule[0].statement`: expected a fingerprint, as `pgsluice route` shows it".to_owned()),
        ("[[rule]]\ntable = \"t\"\nplace = \"nowhere\"", "3:9: `nowhere` is no value of `rule[0].place`: expected `primary` or `replica`".to_owned()),
        ("[[rule]]\ntable = \"t\"\nplace = \"primary\"\n[[rule]]\ntable = \"t\"\nplace = \"replica\"", "4:1: `rule[1]` is about the same as `rule[0]`: expected one rule for each name".to_owned()),
        ("[failover]\nreplay_aborted = \"yes\"", "2:18: bad value for `failover.replay_aborted`: expected true or false, found a string".to_owned()),
        ("[auth]\nmethod = \"scram\"", "2:10: `scram` is no value of `auth.method`: expected one of `scram-sha-256`, `md5`, `trust`, `cert`; did you mean `scram-sha-256`?".to_owned()),
        ("[auth]\nquery = \"SELECT 1\"", "2:9: bad value for `auth.query`: expected a query with $1 for the role's name".to_owned()),
        ("[auth]\nallow = [\"app\", \"app from 10.0.0.0/40\"]", "2:17: bad value for `auth.allow[1]`: expected \"user\", \"user@database\", or either with \" from 10.0.0.0/8\" behind it".to_owned()),
        ("[auth]\npassword = \"x\"", "2:12: `auth` has a password but no `user`: expected the role that runs `auth.query`".to_owned()),
        ("[[listener]]\nroute = \"primary\"", "1:1: `listener[0].listen` is missing: expected an address such as listen = \"127.0.0.1:5000\"".to_owned()),
        ("[[listener]]\nlisten = \"127.0.0.1:1\"", "1:1: `listener[0].route` is missing: expected `primary`, `replica` or `split`".to_owned()),
        ("[[listener]]\nlisten = \"localhost:1\"\nroute = \"primary\"", format!("2:10: bad value for `listener[0].listen`: {ADDRESS}")),
        ("[[listener]]\nlisten = \"127.0.0.1:1\"\nroute = \"split\"\nshadow = true", "4:10: `listener[0].shadow` is for route = \"primary\" only; remove the key, or change the route".to_owned()),
        ("[[listener]]\nlisten = \"127.0.0.1:1\"\nroute = \"primary\"\nwrites = \"refuse\"", "4:10: `listener[0].writes` is for route = \"replica\" only; remove the key, or change the route".to_owned()),
        ("[[listener]]\nlisten = \"127.0.0.1:7000\"\nroute = \"primary\"", "2:10: `127.0.0.1:7000` is taken by `http`: expected an address of its own".to_owned()),
        ("[[node]]\nname = \"pg1\"\nhost = \"db2\"", "5:8: `pg1` is the name of `node[0]` too: expected a name of its own".to_owned()),
        ("[[node]]\nname = \"pg2\"\nhost = \"db1\"\nport = 5432", "7:8: `node[1]` is the same server as `node[0]`: expected another host or port".to_owned()),
        ("[[node]]\nname = \"pg2\"", "1:1: `node[0].host` is missing: expected a host name or address".to_owned()),
        ("[[node]]\nname = \"pg2\"\nhost = \"db2:5432\"", "3:8: bad value for `node[0].host`: expected a host name or address alone; the port has a key of its own".to_owned()),
        ("[[node]]\nhost = \"db2\"\nport = 70000", "3:8: bad value for `node[0].port`: expected a number from 1 to 65535".to_owned()),
        ("[[node]]\nhost = \"db2\"\nweight = -1", "3:10: bad value for `node[0].weight`: expected a number from 0 to 10000".to_owned()),
        ("[[user]]\nname = \"app\"\npassword = \"x\"", "8:8: `app` is `user[0]` too: expected each user once".to_owned()),
        ("[[user]]\nname = \"b\"", "1:1: `user[0].password` is missing: expected one of `password`, `password_file`, `password_env`".to_owned()),
        ("[[user]]\nname = \"b\"\npassword = \"\"", "3:12: `user[0].password`: it is empty: expected a password".to_owned()),
        ("[[user]]\nname = \"b\"\npassword_env = \"NO_SUCH\"", "3:16: `user[0].password_env`: the environment variable is not set: expected the name of a variable that holds the password".to_owned()),
        ("[[user]]\nname = \"b\"\npassword = \"x\"\npassword_env = \"APP_PASSWORD\"", "4:16: `user[0].password` is given more than once: expected one of `password`, `password_file`, `password_env`".to_owned()),
        ("[[user]]\nname = \"b\"\npassword_file = \"/no/such\"", "3:17: `user[0].password_file`: cannot read `/no/such`: No such file or directory (os error 2): expected a readable file".to_owned()),
        ("[tls.clinet]", "1:6: unknown key `clinet` in `tls`: expected `client` or `server`; did you mean `client`?".to_owned()),
        ("[tls.client]\nmode = \"require\"", "2:8: `tls.client.cert` is missing: expected a certificate for this mode, with its key".to_owned()),
        ("[tls.server]\ncert = \"x.crt\"", "2:8: `tls.server.key` is missing: expected the certificate's private key".to_owned()),
        ("[tls.server]\nca = \"/no/such\"", "2:6: `tls.server.ca`: cannot use `/no/such`: No such file or directory (os error 2): expected a readable PEM file".to_owned()),
        ("[log]\nlevel = \"verbose\"", "2:9: `verbose` is no value of `log.level`: expected one of `error`, `warn`, `info`, `debug`, `trace`".to_owned()),
    ];
    for (text, expected) in cases {
        assert_eq!(problems(text), [format!("p.toml:{expected}")], "{text}");
    }
}

#[test]
fn a_file_without_nodes_or_without_anybody_who_could_log_in_is_refused() {
    let errors = parse("").unwrap_err().to_string();
    let expected = "nobody could log in: there is no `[[user]]` and no `auth.user`; add [[user]] with name and password, or [auth] user = \"…\", the role that looks verifiers up in the cluster\n\
        no `[[node]]`: there is nothing to connect to; add [[node]] with name = \"pg1\" and host = \"10.0.0.1\" for each PostgreSQL server";
    assert_eq!(errors, expected);
}

#[test]
fn all_mistakes_of_a_file_are_reported_at_once_in_its_order() {
    let text = "wrkers = 1\n[pool]\nsiez = 1\nmode = 3\nsize = 0\n[probe]\ninterval = \"x\"";
    let found = problems(text);
    let places: Vec<_> = found
        .iter()
        .filter_map(|line| line.split(": ").next())
        .collect();
    assert_eq!(
        places,
        [
            "p.toml:1:1",
            "p.toml:3:1",
            "p.toml:4:8",
            "p.toml:5:8",
            "p.toml:7:12"
        ]
    );
}

#[test]
fn a_file_that_is_no_toml_shows_where() {
    let found = problems("[pool]\nsize = \n[probe\n");
    let places: Vec<_> = found
        .iter()
        .map(|line| line.split(": not valid TOML: ").next().unwrap())
        .collect();
    assert_eq!(places, ["p.toml:2:8", "p.toml:3:7"]);
}

#[test]
fn no_message_holds_a_secret() {
    let texts = [
        "[probe]\npassword = hunter2",
        "[probe]\npassword = \"hunter2",
        "[probe]\npassword = 'hunter2\"",
        "[probe]\npassword = \"hunter2\" x",
        "[probe]\npassword = \"\\hunter2\"",
        "[probe]\npassword = \"\"\"\nhunter2",
        "probe = [\"hunter2\"]",
        "user = [\"hunter2\"]",
        "user = [[\"app\", \"hunter2\"]]",
        "[[user]]\npassword = 3\n[probe]\npassword.x = \"hunter2\"",
        "[probe]\npassword = [\"hunter2\"]",
        "[probe]\npassword = { hunter2 = \"hunter2\" }",
        "[probe]\npasword = \"hunter2\"",
        "[probe]\nkennwort = \"hunter2\"",
        "[probe]\npassword.file = \"hunter2\"",
        "[probe]\npassword = \"a\"\npassword = \"hunter2\"",
        "probe = { password = \"hunter2\", interval = 1 }",
        "probe = { interval = 1, password = \"hunter2\" }",
        "user = [{ nam = \"app\", password = \"hunter2\" }]",
        "[probe]\npassword = \"hunter2\\u0000\"",
    ];
    for text in texts {
        let errors = parse(text).expect_err(text);
        for shown in [
            errors.render(true),
            errors.render(false),
            errors.to_string(),
        ] {
            // A key is no secret, even one that is called so.
            assert!(
                !shown.replace("`hunter2`", "").contains("hunter2"),
                "{text}\n{shown}"
            );
        }
        assert!(
            !format!("{errors:?}")
                .replace("`hunter2`", "")
                .contains("hunter2"),
            "{text}\n{errors:?}"
        );
    }
    let config = good("[probe]\npassword = \"sesame\"");
    let debug = format!("{config:?}");
    assert!(
        !debug.contains("sesame") && !debug.contains("hunter2"),
        "{debug}"
    );
}

#[test]
fn patroni_takes_the_place_of_nodes_and_its_urls_are_checked() {
    let users = "[[user]]\nname = \"app\"\npassword = \"x\"\n";
    let text = format!("[patroni]\nurls = [\"http://db1\", \"http://[::1]:9/\"]\n{users}");
    let config = parse(&text).unwrap().config;
    let urls: Vec<_> = config
        .patroni
        .urls
        .iter()
        .map(|it| (&*it.host, it.port))
        .collect();
    assert_eq!(urls, [("db1", 8008), ("::1", 9)]);
    assert!(config.nodes.is_empty());
    for url in ["https://db1:8008", "db1:8008", "http://u:p@db1"] {
        let text = format!("[patroni]\nurls = [\"{url}\"]\n{users}");
        let error = parse(&text).unwrap_err().to_string();
        assert!(error.contains("bad value for `patroni.urls`"), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let (none, one) = ([""; 0], ["http://db1"]);
    assert_eq!(
        Config::from_patroni(&one, &none)
            .unwrap()
            .patroni
            .urls
            .len(),
        1
    );
    assert_eq!(Config::from_patroni(&one, &["db2"]).unwrap().nodes.len(), 1);
    assert!(Config::from_patroni(&none, &none).is_err());
    let error = Config::from_patroni(&["http://u:hunter2@db1"], &[]).unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[test]
fn a_bad_source_of_nodes_is_named_with_its_place_and_key() {
    let users = "[[user]]\nname = \"app\"\npassword = \"x\"\n";
    let of = |table: &str| parse(&format!("{table}\n{users}"));
    let etcd = of("[patroni]\netcd = [\"http://[::1]\"]\nscope = \"main\"");
    let etcd = etcd.unwrap().config.patroni.etcd.unwrap();
    assert_eq!((etcd.urls[0].port, &*etcd.namespace), (2379, "/service"));
    let node = "[[node]]\nname = \"a\"\nhost = \"db1\"\n";
    let repmgr = of(&format!("{node}[repmgr]\ndatabase = \"repmgr\""));
    assert_eq!(
        repmgr.unwrap().config.repmgr.database.as_deref(),
        Some("repmgr")
    );
    for (table, place, said) in [
        (
            "[patroni]\netcd = [\"db1:2379\"]\nscope = \"main\"",
            "2:9: ",
            "bad value for `patroni.etcd`",
        ),
        (
            "[patroni]\netcd = [\"http://db1\"]",
            "2:9: ",
            "`patroni.scope` is missing",
        ),
        (
            "[patroni]\netcd = [\"http://db1\"]\nscope = \"main\"\nuser = \"u\"",
            "4:8: ",
            "`patroni.password` is missing",
        ),
        (
            "[repmgr]\ndatabase = \"repmgr\"\n[patroni]\nurls = [\"http://db1\"]",
            "2:12: ",
            "`repmgr.database`: `[patroni]` names the nodes already",
        ),
    ] {
        let error = of(table).unwrap_err().to_string();
        assert!(error.contains(&format!("{place}{said}")), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
    }
    let alone = of("[repmgr]\ndatabase = \"repmgr\"").unwrap_err();
    assert!(alone.to_string().contains("nobody to ask"), "{alone}");
}

#[test]
fn keys_without_effect_are_warned_about_unless_they_say_the_default() {
    let silent = "[pool]\nopaque = \"pin\"\n[failover]\nhold = \"30s\"";
    assert_eq!(warnings(silent), [""; 0]);
    let text = "[pool]\nmultiplex = \"off\"";
    let later = |place, key| {
        format!(
            "p.toml:{place}: `{key}` is not in effect yet; this version accepts the key and behaves as with the default"
        )
    };
    let expected = [later("2:13", "pool.multiplex")];
    assert_eq!(warnings(text), expected);
}

#[test]
fn secrets_come_from_files_beside_the_configuration_and_open_ones_are_warned_about() {
    let dir = tempfile::tempdir().unwrap();
    let secret = dir.path().join("app.secret");
    fs::write(&secret, "from-file\n").unwrap();
    let text = format!("[[user]]\nname = \"b\"\npassword_file = \"app.secret\"\n{BASE}");
    let load = |mode| {
        fs::set_permissions(&secret, fs::Permissions::from_mode(mode)).unwrap();
        config::parse(&dir.path().join("p.toml"), &text, &env).unwrap()
    };
    let private = load(0o600);
    assert_eq!(private.config.users[0].password.reveal(), "from-file");
    assert!(private.warnings.is_empty());
    let open = load(0o644);
    let path = secret.display();
    let expected = format!(
        "`user[0].password_file`: other users may read or change `{path}`; chmod 600 {path}"
    );
    assert!(
        open.warnings[0].to_string().ends_with(&expected),
        "{}",
        open.warnings[0]
    );
}

/// A self-signed certificate and its key in `dir`, as `name.crt` and `name.key`.
fn certificate(dir: &Path, name: &str) {
    let made = rcgen::generate_simple_self_signed(vec!["db1".to_owned()]).unwrap();
    let key = dir.join(format!("{name}.key"));
    fs::write(dir.join(format!("{name}.crt")), made.cert.pem()).unwrap();
    fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn certificates_are_read_and_must_belong_to_their_keys() {
    let dir = tempfile::tempdir().unwrap();
    certificate(dir.path(), "a");
    certificate(dir.path(), "b");
    fs::write(
        dir.path().join("junk"),
        "-----BEGIN CERTIFICATE-----\nhunter2\n",
    )
    .unwrap();
    let load = |cert: &str, key: &str, ca: &str| {
        let tls = format!(
            "[tls.client]\nmode = \"verify-full\"\ncert = \"{cert}\"\nkey = \"{key}\"\nca = \"{ca}\"\n[auth]\nmethod = \"cert\"\n{BASE}"
        );
        config::parse(&dir.path().join("p.toml"), &tls, &env).map_err(|errors| {
            errors
                .to_string()
                .replace(&format!("{}/", dir.path().display()), "")
        })
    };
    let config = load("a.crt", "a.key", "b.crt").unwrap().config;
    assert_eq!(config.tls.client.cert, Some(dir.path().join("a.crt")));
    let bad = [
        (
            ("a.crt", "b.key", "a.crt"),
            "p.toml:4:7: `tls.client.key` does not belong to `tls.client.cert`: expected the private key of the first certificate",
        ),
        (
            ("a.key", "a.key", "a.crt"),
            "p.toml:3:8: `tls.client.cert`: cannot use `a.key`: it holds no certificate: expected a readable PEM file",
        ),
        (
            ("a.crt", "a.crt", "a.crt"),
            "p.toml:4:7: `tls.client.key`: cannot use `a.crt`: it holds no private key: expected a readable PEM file",
        ),
        (
            ("a.crt", "a.key", "junk"),
            "p.toml:5:6: `tls.client.ca`: cannot use `junk`: it is not valid PEM: expected a readable PEM file",
        ),
    ];
    for ((cert, key, ca), expected) in bad {
        assert_eq!(load(cert, key, ca).unwrap_err(), expected);
    }
}

#[test]
fn a_certificate_alone_switches_tls_on_and_the_cert_method_demands_verification() {
    let dir = tempfile::tempdir().unwrap();
    certificate(dir.path(), "a");
    let load = |method: &str| {
        let text = format!(
            "[tls.client]\ncert = \"a.crt\"\nkey = \"a.key\"\n[auth]\nmethod = \"{method}\"\n{BASE}"
        );
        config::parse(&dir.path().join("p.toml"), &text, &env)
    };
    assert_eq!(load("md5").unwrap().config.tls.client.mode, TlsMode::Prefer);
    let expected = "`auth.method` = \"cert\" without clients' certificates; set mode = \"verify-ca\" or \"verify-full\", cert, key and ca in [tls.client]";
    assert_eq!(load("cert").unwrap_err().to_string(), expected);
}

// ---- The commented default file.

const DEFAULT_FILE: &str = include_str!("../config/pgsluice.toml");

/// `#key = …` is a default, `#? …` an example; `# …` is prose.
fn uncomment(line: &str, examples: bool) -> &str {
    if let Some(example) = line.strip_prefix("#? ") {
        return if examples { example } else { line };
    }
    match line.strip_prefix('#') {
        Some(setting) if setting.starts_with(|c: char| c.is_ascii_lowercase()) => setting,
        _ => line,
    }
}

fn uncommented(examples: bool) -> String {
    let lines = DEFAULT_FILE.lines().map(|line| uncomment(line, examples));
    lines.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_default_file_shows_the_defaults() {
    let shown = parse(DEFAULT_FILE).unwrap();
    assert!(shown.warnings.is_empty());
    let mut expected = Config {
        nodes: vec![Node::at("pg1", "127.0.0.1", 5432)],
        ..Config::default()
    };
    expected.auth.user = Some("pgsluice_auth".to_owned());
    assert_eq!(shown.config, expected);
    let spelled_out = parse(&uncommented(false)).unwrap();
    assert!(spelled_out.warnings.is_empty());
    assert_eq!(spelled_out.config, expected);
}

/// The keys that exist in a table, by the message about one that does not.
fn known_keys(table: &str) -> Vec<String> {
    let errors = parse(&format!("{table}\nzzz = 1")).unwrap_err();
    let unknown = errors
        .problems
        .iter()
        .find(|one| one.key.ends_with("zzz"))
        .unwrap();
    let expected = unknown.expected.as_deref().unwrap();
    expected
        .split('`')
        .skip(1)
        .step_by(2)
        .map(str::to_owned)
        .collect()
}

/// The lines of a table in the default file, over all of its places, everything uncommented.
fn lines_of(table: &str) -> Vec<String> {
    let (mut inside, mut found) = (table.is_empty(), Vec::new());
    for line in uncommented(true).lines() {
        match line.starts_with('[') {
            true => inside = line == table,
            false if inside => found.push(line.to_owned()),
            false => {}
        }
    }
    found
}

#[test]
fn the_default_file_shows_every_key() {
    let tables = [
        "[http]",
        "[[listener]]",
        "[[node]]",
        "[pool]",
        "[probe]",
        "[reads]",
        "[[rule]]",
        "[[login]]",
        "[failover]",
        "[limits]",
        "[auth]",
        "[[user]]",
        "[tls.client]",
        "[tls.server]",
        "[log]",
    ];
    for table in tables {
        let lines = lines_of(table);
        for key in known_keys(table) {
            let shown = lines
                .iter()
                .any(|line| line.starts_with(&format!("{key} = ")));
            assert!(shown, "{table} {key} is not in config/pgsluice.toml");
        }
    }
    let all = uncommented(true);
    for table in known_keys("") {
        let shown = ["[", "[["]
            .iter()
            .any(|open| all.contains(&format!("\n{open}{table}")));
        assert!(shown || all.contains(&format!("\n{table} = ")), "{table}");
    }
}

#[test]
fn the_default_file_is_honest_about_what_is_not_in_effect() {
    // With a value that is not the default, the key of a later version gives a warning.
    assert_eq!(warnings("[pool]\nmultiplex = \"off\"").len(), 1);
    // And the file says so.
    let said = DEFAULT_FILE.matches("Not in effect yet.").count();
    assert_eq!(said, 1);
}

// ---- The binary.

fn pgsluice(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pgsluice"))
        .args(args)
        .env("NO_COLOR", "1")
        .output()
        .unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn a_bad_file_ends_the_program_with_64_and_shows_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.toml");
    fs::write(&path, format!("[pool]\nsiez = 30\n{BASE}")).unwrap();
    let name = path.to_str().unwrap();
    for command in ["check", "run"] {
        let output = pgsluice(&[command, "-c", name]);
        assert_eq!(output.status.code(), Some(64), "{command}");
        let expected = format!(
            "error: unknown key `siez` in `pool`
 --> {name}:2:1
  |
2 | siez = ***
  | ^^^^ expected one of `mode`, `size`, `checkout_timeout`, `idle_timeout`, `lifetime`, `login_backoff`, `opaque`, `harmless_functions`, `sequences`, `multiplex`
  |
  = help: did you mean `size`?

pgsluice: 1 error in the configuration
"
        );
        assert_eq!(text(&output.stderr), expected, "{command}");
        assert_eq!(text(&output.stdout), "", "{command}");
    }
}

#[test]
fn a_file_that_is_not_there_ends_the_program_with_64() {
    let output = pgsluice(&["check", "-c", "/no/such.toml"]);
    assert_eq!(output.status.code(), Some(64));
    let said = text(&output.stderr);
    assert!(
        said.starts_with("error: cannot read `/no/such.toml`: No such file or directory"),
        "{said}"
    );
}

#[test]
fn a_bad_command_line_ends_the_program_with_64_and_help_with_0() {
    let cases: [(&[&str], i32); 10] = [
        (&[], 64),
        (&["frobnicate"], 64),
        (&["check", "--frobnicate"], 64),
        (&["run", "--node", "db1:x"], 64),
        (&["run", "--url", "http://db1"], 64),
        (&["run", "--url", "postgres://db1", "--node", "db2"], 64),
        (&["run", "--patroni", "db1"], 64),
        (&["--help"], 0),
        (&["--version"], 0),
        (&["check", "--help"], 0),
    ];
    for (args, code) in cases {
        assert_eq!(pgsluice(args).status.code(), Some(code), "{args:?}");
    }
}

#[test]
fn completions_and_the_manual_page_name_the_commands() {
    let bash = text(&pgsluice(&["completions", "bash"]).stdout);
    let man = text(&pgsluice(&["man"]).stdout);
    for command in ["check", "run", "demo"] {
        assert!(bash.contains(command), "{command}");
        assert!(man.contains(command), "{command}");
    }
}

#[test]
fn check_says_of_a_node_that_cannot_be_reached_why_and_ends_with_1() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.toml");
    // Bound and not listening: connections are refused, and nobody else gets the port.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    let any: std::net::SocketAddr = ([127, 0, 0, 1], 0).into();
    socket.bind(&any.into()).unwrap();
    let port = socket.local_addr().unwrap().as_socket().unwrap().port();
    let file = format!(
        "[http]\nlisten = \"off\"\n[[listener]]\nlisten = \"127.0.0.1:0\"\nroute = \"primary\"\n[[node]]\nname = \"pg1\"\nhost = \"127.0.0.1\"\nport = {port}\n[[user]]\nname = \"app\"\npassword = \"hunter2\"\n"
    );
    fs::write(&path, file).unwrap();
    let output = pgsluice(&["check", "-c", path.to_str().unwrap()]);
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("error: pg1: error connecting to server: Connection refused"),
        "{said}"
    );
    assert!(
        said.contains("error: no primary: writes would have nowhere to go"),
        "{said}"
    );
    assert!(!said.contains("hunter2"), "{said}");
}
