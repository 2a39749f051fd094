//! tokio-postgres' life: what it saw, as text.

use std::{fmt::Write, path::Path, time::Duration};

use futures_util::{SinkExt, StreamExt, TryStreamExt, future, pin_mut};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::sync::mpsc;
use tokio_postgres::{
    AsyncMessage, Client, Config, Connection, Error, NoTls,
    config::{ChannelBinding, SslMode},
    error::SqlState,
    tls::TlsStream,
};
use tokio_postgres_rustls::MakeRustlsConnect;

const PATIENCE: Duration = Duration::from_secs(120);

/// The whole life at `port`; over TLS if there is an authority. Bounded in time.
pub fn live(port: u16, database: &str, authority: Option<&Path>) -> String {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let door = Door {
        port,
        database,
        authority,
    };
    runtime
        .block_on(async { tokio::time::timeout(PATIENCE, door.life()).await })
        .expect("a life within its time")
}

/// Where to connect.
struct Door<'a> {
    port: u16,
    database: &'a str,
    authority: Option<&'a Path>,
}

type Heard = mpsc::UnboundedReceiver<AsyncMessage>;

impl Door<'_> {
    async fn life(&self) -> String {
        let mut seen = String::new();
        let (client, mut heard) = self.connect().await;
        values(&client, &mut seen).await;
        pipeline(&client, &mut seen).await;
        copies(&client, &mut seen).await;
        transactions(self.connect().await.0, &mut seen).await;
        self.notifications(&client, &mut heard, &mut seen).await;
        self.cancel(&client, &mut seen).await;
        self.many(&mut seen).await;
        seen
    }

    async fn connect(&self) -> (Client, Heard) {
        let mut config = Config::new();
        config
            .host("localhost")
            .hostaddr("127.0.0.1".parse().unwrap())
            .port(self.port)
            .dbname(self.database)
            .user("app")
            .password("secret");
        let Some(authority) = self.authority else {
            let (client, connection) = config.connect(NoTls).await.unwrap();
            return (client, listen(connection));
        };
        config
            .ssl_mode(SslMode::Require)
            .channel_binding(ChannelBinding::Require);
        let (client, connection) = config.connect(tls(authority)).await.unwrap();
        (client, listen(connection))
    }

    async fn notifications(&self, client: &Client, heard: &mut Heard, seen: &mut String) {
        let (other, _) = self.connect().await;
        client.batch_execute("LISTEN life").await.unwrap();
        other.batch_execute("NOTIFY life, 'one'").await.unwrap();
        loop {
            match heard.recv().await.unwrap() {
                AsyncMessage::Notification(it) => {
                    return writeln!(seen, "{} {}", it.channel(), it.payload()).unwrap();
                }
                _ => continue,
            }
        }
    }

    async fn cancel(&self, client: &Client, seen: &mut String) {
        let token = client.cancel_token();
        let slow = client.batch_execute("SELECT pg_sleep(60)");
        let stop = async {
            let (watcher, _) = self.connect().await;
            let running = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' \
                           AND datname = current_database() AND query = 'SELECT pg_sleep(60)'";
            while watcher
                .query_one(running, &[])
                .await
                .unwrap()
                .get::<_, i64>(0)
                == 0
            {}
            match self.authority {
                Some(authority) => token.cancel_query(tls(authority)).await.unwrap(),
                None => token.cancel_query(NoTls).await.unwrap(),
            }
        };
        let (slow, ()) = future::join(slow, stop).await;
        writeln!(seen, "{}", code(&slow.unwrap_err())).unwrap();
        let row = client.query_one("SELECT 'alive'", &[]).await.unwrap();
        writeln!(seen, "{}", row.get::<_, &str>(0)).unwrap();
    }

    /// Fifty clients at once.
    async fn many(&self, seen: &mut String) {
        let one = |number: i32| async move {
            let (client, _heard) = self.connect().await;
            let mut sum = 0;
            for _ in 0..5 {
                let row = client.query_one("SELECT $1::int4", &[&number]).await;
                sum += row.unwrap().get::<_, i32>(0);
            }
            sum
        };
        let sums = future::join_all((0..50).map(one)).await;
        writeln!(seen, "{sums:?}").unwrap();
    }
}

fn tls(authority: &Path) -> MakeRustlsConnect {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(authority).unwrap())
        .unwrap();
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    MakeRustlsConnect::new(config)
}

/// Drives the connection; what comes unasked is kept.
fn listen<T>(mut connection: Connection<tokio_postgres::Socket, T>) -> Heard
where
    T: TlsStream + Unpin + Send + 'static,
{
    let (tell, heard) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut messages = futures_util::stream::poll_fn(move |cx| connection.poll_message(cx));
        while let Some(Ok(message)) = messages.next().await {
            let _ = tell.send(message);
        }
    });
    heard
}

fn code(error: &Error) -> &str {
    error.code().map_or("no SQLSTATE", SqlState::code)
}

async fn values(client: &Client, seen: &mut String) {
    let text = "it's \"ünï\" 🐘";
    let sql = "SELECT $1::int4, $2::text, $3::bytea, $4::int8[], $5::text";
    let parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)] =
        &[&42, &text, &&b"\0\xff"[..], &vec![1i64, 2], &None::<&str>];
    let row = client.query_one(sql, parameters).await.unwrap();
    writeln!(
        seen,
        "{} {} {:?} {:?} {:?}",
        row.get::<_, i32>(0),
        row.get::<_, &str>(1),
        row.get::<_, &[u8]>(2),
        row.get::<_, Vec<i64>>(3),
        row.get::<_, Option<&str>>(4)
    )
    .unwrap();
    let rows = client
        .simple_query("SELECT 1; SELECT 2, NULL; SELECT")
        .await;
    writeln!(seen, "{rows:?}").unwrap();
    for bad in ["SELEC", "SELECT 1/0", "SELECT * FROM nowhere"] {
        let error = client.query(bad, &[]).await.unwrap_err();
        writeln!(seen, "{bad} {}", code(&error)).unwrap();
    }
}

/// Prepared once; hundreds under way at once, one of them bad.
async fn pipeline(client: &Client, seen: &mut String) {
    let divide = client.prepare("SELECT 1000 / $1::int4").await.unwrap();
    let ask = |i: i32| {
        let divide = &divide;
        async move { client.query_one(divide, &[&i]).await }
    };
    let answers = future::join_all((-100..100).map(ask)).await;
    let told = answers.iter().map(|answer| match answer {
        Ok(row) => row.get::<_, i32>(0).to_string(),
        Err(error) => code(error).to_owned(),
    });
    writeln!(seen, "{}", told.collect::<Vec<_>>().join(" ")).unwrap();
}

async fn copies(client: &Client, seen: &mut String) {
    let made = client
        .batch_execute("CREATE TABLE c (id int4, v text)")
        .await;
    made.unwrap();
    let sink = client.copy_in::<_, bytes::Bytes>("COPY c FROM STDIN").await;
    let sink = sink.unwrap();
    pin_mut!(sink);
    for i in 0..5000 {
        let line = format!("{i}\tvalue {i}\n");
        sink.send(line.into()).await.unwrap();
    }
    writeln!(seen, "{}", sink.finish().await.unwrap()).unwrap();
    {
        // Dropped before its end: rolled back.
        let sink = client.copy_in::<_, bytes::Bytes>("COPY c FROM STDIN").await;
        let sink = sink.unwrap();
        pin_mut!(sink);
        sink.send("1\tx\n".into()).await.unwrap();
    }
    let out = client.copy_out("COPY c TO STDOUT").await.unwrap();
    let out: Vec<_> = out.try_collect().await.unwrap();
    writeln!(seen, "{}", out.iter().map(|part| part.len()).sum::<usize>()).unwrap();
}

async fn transactions(mut client: Client, seen: &mut String) {
    let made = client
        .batch_execute("CREATE TABLE t (id int4 PRIMARY KEY)")
        .await;
    made.unwrap();
    let mut transaction = client.transaction().await.unwrap();
    transaction
        .execute("INSERT INTO t VALUES (1)", &[])
        .await
        .unwrap();
    let inner = transaction.transaction().await.unwrap();
    let twice = inner.execute("INSERT INTO t VALUES (1)", &[]).await;
    writeln!(seen, "{}", code(&twice.unwrap_err())).unwrap();
    inner.rollback().await.unwrap();
    let portal = transaction
        .bind("SELECT * FROM generate_series(1, 10)", &[])
        .await;
    let portal = portal.unwrap();
    for _ in 0..3 {
        let rows = transaction.query_portal(&portal, 4).await.unwrap();
        writeln!(seen, "{}", rows.len()).unwrap();
    }
    transaction.commit().await.unwrap();
    // Dropped: rolled back.
    let dropped = client.transaction().await.unwrap();
    dropped
        .execute("INSERT INTO t VALUES (2)", &[])
        .await
        .unwrap();
    drop(dropped);
    let row = client
        .query_one("SELECT count(*) FROM t", &[])
        .await
        .unwrap();
    writeln!(seen, "{}", row.get::<_, i64>(0)).unwrap();
}
