"""psycopg 3's life: prints what it saw, so that direct and through the proxy can be compared.

Where to connect comes from libpq's environment. With "reads" as argument: what may run on a replica.
"""

import asyncio
import datetime
import decimal
import hashlib
import os
import select
import socket
import sys
import threading
import time
import uuid

import psycopg
from psycopg import errors, sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from psycopg.types.range import Range

CLIENTS = int(os.environ.get("CLIENTS", "50"))
PATIENCE = 60


def connect(**more):
    return psycopg.connect(connect_timeout=PATIENCE, **more)


def say(*what):
    print(*what, flush=True)


def refused(conn, query, *args):
    try:
        conn.execute(query, *args)
        return "accepted"
    except psycopg.Error as e:
        return (type(e).__name__, e.sqlstate)


def greeting():
    with connect() as conn:
        info = conn.info
        say(info.server_version, info.encoding, info.transaction_status.name)
        for name in ["client_encoding", "DateStyle", "standard_conforming_strings", "in_hot_standby", "server_encoding",
                     "default_transaction_read_only", "is_superuser", "session_authorization", "TimeZone"]:
            say(name, info.parameter_status(name))
        say(conn.pgconn.ssl_in_use, conn.pgconn.used_password)
    with connect(options="-c statement_timeout=12345 -c search_path=pg_catalog,public -c my.own=7",
                 application_name="a life") as conn:
        for name in ["statement_timeout", "search_path", "my.own", "application_name"]:
            say(name, conn.execute(f"SHOW {name}").fetchone())
        conn.execute("SET statement_timeout = 1")
        conn.execute("RESET statement_timeout")
        say(conn.execute("SHOW statement_timeout").fetchone())
    with connect(client_encoding="latin1") as conn:
        say(conn.info.encoding, conn.execute("SELECT 'ä'::text, octet_length('ä')").fetchone())


def values():
    samples = [
        None, True, 42, 2**40, decimal.Decimal("123456789.000100"), 1.5, "it's \"ünïcode\" \\ 🐘", b"\x00\xff raw",
        datetime.date(2024, 2, 29), datetime.datetime(2024, 2, 29, 12, 30, 1, 234567, tzinfo=datetime.timezone.utc),
        datetime.timedelta(days=3, seconds=4), uuid.UUID(int=12345), [1, 2, None], ["a", "b,c", None], Jsonb({"a": [1, None]}),
        Range(1, 10),
    ]
    with connect() as conn:
        for binary in (False, True):
            cur = conn.cursor(binary=binary)
            for sample in samples:
                mark = "%b" if binary and not isinstance(sample, Jsonb) else "%s"
                try:
                    cur.execute(f"SELECT {mark} AS v, pg_typeof({mark})::text", [sample, sample])
                    say(binary, repr(cur.fetchone()), cur.description[0].type_code)
                except psycopg.Error as e:
                    conn.rollback()
                    say(binary, type(e).__name__, e.sqlstate)
        say(conn.execute("SELECT").fetchone(), conn.execute("SELECT 1 WHERE false").fetchall())
        cur = conn.execute("SELECT 1; SELECT 2, 3; SELECT 'x'")
        while True:
            say(cur.fetchall())
            if not cur.nextset():
                break
        say(conn.cursor(row_factory=dict_row).execute("SELECT 1 AS a, NULL AS b").fetchone())
        say(conn.execute("").statusmessage)


def large_results():
    with connect() as conn:
        digest = hashlib.sha256()
        count = 0
        for row in conn.execute("SELECT i, md5(i::text), repeat('x', i % 500) FROM generate_series(1, 60000) i"):
            digest.update(repr(row).encode())
            count += 1
        say(count, digest.hexdigest())
        (wide,) = conn.execute("SELECT repeat('abcdefgh', 2500000)").fetchone()
        say(len(wide), hashlib.sha256(wide.encode()).hexdigest())
        blob = os.urandom(1) * 5_000_000
        say(conn.execute("SELECT %s = %b, length(%b)", [blob, blob, blob]).fetchone())
        text = "-- " + "y" * 3_000_000 + "\nSELECT 'after a long comment'"
        say(conn.execute(text).fetchone())


def transactions():
    with connect() as conn:
        conn.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
        conn.execute("INSERT INTO t VALUES (1, 'rolled back')")
        conn.rollback()
    say(refused(connect(autocommit=True), "SELECT * FROM t"))
    with connect() as conn:
        conn.execute("CREATE TABLE t (id int PRIMARY KEY, v text)")
        conn.execute("INSERT INTO t VALUES (1, 'kept')")
        conn.commit()
        say(conn.info.transaction_status.name)
        say(refused(conn, "INSERT INTO t VALUES (1, 'twice')"), conn.info.transaction_status.name)
        say(refused(conn, "SELECT 1"))
        conn.rollback()
        say(conn.info.transaction_status.name)
        with conn.transaction():
            conn.execute("INSERT INTO t VALUES (2, 'outer')")
            try:
                with conn.transaction():
                    conn.execute("INSERT INTO t VALUES (3, 'inner')")
                    conn.execute("SELECT 1/0")
            except errors.DivisionByZero as e:
                say(e.sqlstate, e.diag.message_primary)
            with conn.transaction():
                conn.execute("INSERT INTO t VALUES (4, 'second inner')")
        say(conn.execute("SELECT * FROM t ORDER BY id").fetchall())
        conn.commit()
        for level in psycopg.IsolationLevel:
            conn.isolation_level = level
            say(level.name, conn.execute("SHOW transaction_isolation").fetchone())
            conn.commit()
        conn.isolation_level = None
        conn.read_only = True
        say(refused(conn, "INSERT INTO t VALUES (9, 'no')"))
        conn.rollback()
        conn.read_only = None
        conn.autocommit = True
        cur = conn.execute("UPDATE t SET v = v || '!' RETURNING id")
        say(cur.rowcount, cur.statusmessage, sorted(cur.fetchall()))
        for bad in ["SELEC 1", "SELECT * FROM nowhere", "SELECT 'x'::int", "COMMIT; SELECT 1/0; SELECT 2", "SAVEPOINT a"]:
            say(bad, refused(conn, bad), conn.info.transaction_status.name)
        conn.execute("CREATE TABLE deferred (id int UNIQUE DEFERRABLE INITIALLY DEFERRED)")
        conn.autocommit = False
        conn.execute("INSERT INTO deferred VALUES (1), (1)")
        try:
            conn.commit()
        except errors.UniqueViolation as e:
            say(e.sqlstate, conn.info.transaction_status.name)
        conn.rollback()


def two_phases():
    with connect() as conn:
        conn.execute("CREATE TABLE two (id int)")
        conn.commit()
        xid = conn.xid(1, f"life {conn.info.dbname}", "branch")
        conn.tpc_begin(xid)
        conn.execute("INSERT INTO two VALUES (1)")
        conn.tpc_prepare()
        conn.tpc_commit()
        xid = conn.xid(2, f"life {conn.info.dbname}", "branch")
        conn.tpc_begin(xid)
        conn.execute("INSERT INTO two VALUES (2)")
        conn.tpc_prepare()
        conn.tpc_rollback()
        say(conn.execute("SELECT * FROM two").fetchall())


def prepared():
    with connect(prepare_threshold=1, autocommit=True) as conn:
        conn.execute("CREATE TABLE p (id int, v text)")
        for i in range(30):
            conn.execute("INSERT INTO p VALUES (%s, %s)", [i, str(i)])
        say(conn.execute("SELECT count(*), sum(id) FROM p WHERE v <> %s", ["5"], prepare=True).fetchone())
        for i in range(130):
            conn.execute(sql.SQL("SELECT {} + %s").format(i), [1], prepare=True)
        say(conn.execute("SELECT count(*) > 50 FROM pg_prepared_statements").fetchone())
        say(conn.execute("SELECT * FROM p WHERE id = %s", [3], prepare=True).fetchone())
        conn.execute("ALTER TABLE p ADD COLUMN more int DEFAULT 7")
        say(refused(conn, "SELECT * FROM p WHERE id = %s", [3]))
        conn.execute("DEALLOCATE ALL")
        say(conn.execute("SELECT * FROM p WHERE id = %s", [3]).fetchone())
        conn.execute("PREPARE plan (int) AS SELECT $1 * 2")
        say(conn.execute("EXECUTE plan(21)").fetchone())
        conn.execute("DEALLOCATE plan")
        say(refused(conn, "EXECUTE plan(21)"))
        conn.cursor().executemany("INSERT INTO p VALUES (%s, %s)", [(i, None) for i in range(1000)])
        cur = conn.cursor()
        cur.executemany("SELECT %s::int * 2", [(i,) for i in range(5)], returning=True)
        got = []
        while True:
            got.append(cur.fetchone())
            if not cur.nextset():
                break
        say(got, conn.execute("SELECT count(*) FROM p").fetchone())


def server_cursors():
    with connect() as conn:
        with conn.cursor(name="wander") as cur:
            cur.itersize = 100
            cur.execute("SELECT i, md5(i::text) FROM generate_series(1, %s) i", [2500])
            say(sum(row[0] for row in cur))
        with conn.cursor(name="scroller", scrollable=True) as cur:
            cur.execute("SELECT * FROM generate_series(1, 100)")
            cur.scroll(50)
            say(cur.fetchone(), cur.fetchmany(3))
            cur.scroll(-10)
            say(cur.fetchone())
            cur.scroll(5, mode="absolute")
            say(cur.fetchone())
        conn.commit()
        with conn.cursor(name="holder", withhold=True) as cur:
            cur.execute("SELECT * FROM generate_series(1, 10)")
            say(cur.fetchmany(2))
            conn.commit()
            say(conn.execute("SELECT 'between'").fetchone())
            conn.commit()
            say(cur.fetchall())
        conn.commit()
        say(refused(conn, "FETCH 1 FROM holder"))


def copies():
    with connect() as conn:
        conn.execute("CREATE TABLE c (id int, v text, at timestamptz)")
        now = datetime.datetime(2024, 1, 1, tzinfo=datetime.timezone.utc)
        with conn.cursor().copy("COPY c FROM STDIN") as copy:
            for i in range(20000):
                copy.write_row((i, None if i % 7 == 0 else f"v\t{i}\\\n", now))
        with conn.cursor().copy("COPY c FROM STDIN (FORMAT binary)") as copy:
            copy.set_types(["int4", "text", "timestamptz"])
            for i in range(1000):
                copy.write_row((i, "binary", now))
        conn.commit()
        for form in ["text", "csv", "binary"]:
            digest = hashlib.sha256()
            with conn.cursor().copy(f"COPY (SELECT * FROM c ORDER BY id, v) TO STDOUT (FORMAT {form})") as copy:
                for block in copy:
                    digest.update(block)
            say(form, digest.hexdigest())
        try:
            with conn.cursor().copy("COPY c FROM STDIN") as copy:
                copy.write_row((1, "x", now))
                raise ValueError("changed my mind")
        except ValueError as e:
            say("aborted by the client", e, conn.info.transaction_status.name)
        conn.rollback()
        try:
            with conn.cursor().copy("COPY c FROM STDIN") as copy:
                copy.write(b"not a number\tx\t2024-01-01\n")
                for _ in range(2000):
                    copy.write(b"1\tx\t2024-01-01\n" * 100)
        except errors.InvalidTextRepresentation as e:
            say("refused by the server", e.sqlstate, conn.info.transaction_status.name)
        conn.rollback()
        try:
            with conn.cursor().copy("COPY nowhere FROM STDIN") as copy:
                copy.write(b"1\n")
        except errors.UndefinedTable as e:
            say(e.sqlstate)
        conn.rollback()
        try:
            with conn.cursor().copy("COPY (SELECT repeat('z', 1000) FROM generate_series(1, 20000)) TO STDOUT") as copy:
                say(len(next(iter(copy))))
                raise ValueError("seen enough")
        except ValueError as e:
            say(e)
        say("left a COPY early", conn.info.transaction_status.name)
        conn.rollback()
        say(conn.execute("SELECT count(*), count(v) FROM c").fetchone())


def pipelines():
    with connect(autocommit=True) as conn:
        conn.execute("CREATE TABLE pipe (id int PRIMARY KEY)")
        with conn.pipeline() as pipeline:
            cursors = [conn.execute("SELECT %s::int * 3", [i]) for i in range(300)]
            pipeline.sync()
            say(sum(cur.fetchone()[0] for cur in cursors))
        with conn.pipeline() as pipeline:
            conn.execute("INSERT INTO pipe VALUES (1)")
            conn.execute("INSERT INTO pipe VALUES (2)")
            pipeline.sync()
        # Which call raises depends on when the answers come, what is raised does not.
        try:
            with conn.pipeline():
                for number in (3, 1, 4):
                    conn.execute("INSERT INTO pipe VALUES (%s)", [number])
        except psycopg.Error as e:
            say(type(e).__name__, e.sqlstate)
        say(conn.execute("SELECT array_agg(id ORDER BY id) FROM pipe").fetchone())
        with conn.pipeline():
            with conn.transaction():
                conn.execute("INSERT INTO pipe VALUES (10)")
                conn.execute("INSERT INTO pipe VALUES (11)")
            try:
                with conn.transaction():
                    conn.execute("INSERT INTO pipe VALUES (12)")
                    conn.execute("INSERT INTO pipe VALUES (12)").fetchall()
            except psycopg.Error as e:
                say(type(e).__name__)
        say(conn.execute("SELECT array_agg(id ORDER BY id) FROM pipe").fetchone(), conn.info.transaction_status.name)
        # More than sockets hold, both ways at once.
        with conn.pipeline() as pipeline:
            cursors = [conn.execute("SELECT %s::text || repeat('r', 20000)", ["s" * 20000]) for _ in range(300)]
            pipeline.sync()
            say(sum(len(cur.fetchone()[0]) for cur in cursors))


def bare_pipelines():
    """libpq's own pipeline mode: every result, in order."""
    with connect(autocommit=True) as conn:
        conn.execute("CREATE TABLE bare (id int PRIMARY KEY)")
        bare = conn.pgconn
        bare.nonblocking = 0
        bare.enter_pipeline_mode()
        for batch in [(1, 2), (3, 1, 4), (5,), (), (6, 6), (7,)]:
            for number in batch:
                bare.send_query_params(b"INSERT INTO bare VALUES ($1) RETURNING id", [str(number).encode()])
            bare.pipeline_sync()
        left = 6
        while left:
            result = bare.get_result()
            if result is None:
                continue
            status = psycopg.pq.ExecStatus(result.status)
            code = result.error_field(psycopg.pq.DiagnosticField.SQLSTATE)
            say(status.name, code, result.get_value(0, 0))
            left -= status == psycopg.pq.ExecStatus.PIPELINE_SYNC
        bare.exit_pipeline_mode()
        bare.nonblocking = 1
        say(conn.execute("SELECT array_agg(id ORDER BY id) FROM bare").fetchone())


def notifications():
    with connect(autocommit=True) as listener, connect(autocommit=True) as speaker:
        listener.execute("LISTEN life")
        speaker.execute("NOTIFY life, 'one'")
        speaker.execute("SELECT pg_notify('life', 'two')")
        with speaker.transaction():
            speaker.execute("NOTIFY life, 'three'")
            say("in the transaction", [n.payload for n in listener.notifies(timeout=PATIENCE, stop_after=2)])
        say([n.payload for n in listener.notifies(timeout=PATIENCE, stop_after=1)])
        listener.execute("NOTIFY life, 'to myself'")
        say([(n.payload, n.pid > 0) for n in listener.notifies(timeout=PATIENCE, stop_after=1)])
        listener.execute("UNLISTEN life")
        speaker.execute("NOTIFY life, 'to nobody'")
        say(listener.execute("SELECT 1").fetchone(), list(listener.notifies(timeout=0)))
        notices = []
        speaker.add_notice_handler(lambda diag: notices.append((diag.severity, diag.message_primary)))
        speaker.execute("DO $$BEGIN RAISE NOTICE 'heard %', 1; RAISE WARNING 'and %', 2; END$$")
        say(notices)


def cancels():
    with connect(autocommit=True) as conn, connect(autocommit=True) as watcher:
        for how in ["cancel_safe", "cancel"]:
            marker = f"life of {how} in {conn.info.dbname}"
            def cancel():
                deadline = time.monotonic() + PATIENCE
                seen = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE %s AND pid <> pg_backend_pid()"
                while watcher.execute(seen, [f"%{marker}%"]).fetchone()[0] == 0:
                    assert time.monotonic() < deadline
                getattr(conn, how)()
            thread = threading.Thread(target=cancel)
            thread.start()
            say(how, refused(conn, f"SELECT pg_sleep({PATIENCE}) /* {marker} */"))
            thread.join()
            say(conn.execute("SELECT 'alive'").fetchone())
        conn.execute("SET statement_timeout = '50ms'")
        say(refused(conn, f"SELECT pg_sleep({PATIENCE})"))
        conn.execute("RESET statement_timeout")
        say(conn.execute("SHOW statement_timeout").fetchone())
        conn.cancel_safe()
        say(conn.execute("SELECT 'cancelled while idle'").fetchone())
    async def timed_out():
        async with await psycopg.AsyncConnection.connect(autocommit=True) as conn:
            try:
                await asyncio.wait_for(conn.execute(f"SELECT pg_sleep({PATIENCE})"), 0.3)
            except asyncio.TimeoutError:
                say("TimeoutError", conn.info.transaction_status.name)
            say(await (await conn.execute("SELECT 'alive'")).fetchone())
    asyncio.run(timed_out())


def concurrency():
    with connect(autocommit=True) as conn:
        conn.execute("CREATE TABLE counter (id int PRIMARY KEY, n int)")
        conn.execute("INSERT INTO counter SELECT i, 0 FROM generate_series(0, 4) i")
    failures = []
    def work(number):
        try:
            with connect(prepare_threshold=None) as conn:
                for i in range(10):
                    conn.execute("UPDATE counter SET n = n + 1 WHERE id = %s", [(number + i) % 5])
                    (got,) = conn.execute("SELECT %s::int", [number * 1000 + i]).fetchone()
                    assert got == number * 1000 + i, got
                    conn.rollback() if i == 5 else conn.commit()
        except Exception as e:
            failures.append(repr(e))
    threads = [threading.Thread(target=work, args=[i]) for i in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with connect() as conn:
        say(failures, conn.execute("SELECT * FROM counter ORDER BY id").fetchall())


def broken_off():
    """Clients that are gone in the middle leave nothing behind."""
    with connect(autocommit=True) as conn:
        conn.execute("CREATE TABLE gone (id int)")
        def cut(*queries):
            victim = connect()
            for query in queries:
                victim.execute(query)
            victim.pgconn.send_query(b"INSERT INTO gone SELECT 1 FROM pg_sleep(0.1)")
            victim.pgconn.flush()
            half = socket.socket(fileno=os.dup(victim.pgconn.socket))
            half.shutdown(socket.SHUT_RDWR)
            half.close()
        cut("INSERT INTO gone VALUES (1)")
        cut("SET search_path = nowhere, public", "LOCK TABLE gone")
        cut("CREATE TEMP TABLE gone_too (id int)", "SELECT pg_advisory_lock(77)")
        copier = connect()
        copier.pgconn.send_query(b"COPY gone FROM STDIN")
        copier.pgconn.flush()
        os.dup2(os.open(os.devnull, os.O_RDWR), copier.pgconn.socket)
        # The lock is free again once the victims' servers have ended.
        conn.execute("SELECT pg_advisory_lock(77)")
        with conn.transaction():
            conn.execute("LOCK TABLE gone IN ACCESS EXCLUSIVE MODE")
        say(conn.execute("SELECT count(*) FROM gone").fetchone(), conn.execute("SHOW search_path").fetchone())


def session_state():
    with connect(autocommit=True) as a, connect(autocommit=True) as b:
        a.execute("SET DateStyle = 'German'")
        a.execute("SET TimeZone = 'Asia/Tokyo'")
        say(a.info.parameter_status("DateStyle"), a.info.parameter_status("TimeZone"))
        day = "SELECT '2024-02-01'::date::text, '2024-02-01 00:00+00'::timestamptz::text"
        say(a.execute(day).fetchone(), b.execute(day).fetchone())
        a.execute("RESET DateStyle")
        a.execute("SELECT set_config('TimeZone', 'UTC', false)")
        say(a.execute(day).fetchone(), a.info.parameter_status("TimeZone"))
        a.execute("SELECT set_config('app.tenant', '42', false)")
        say(a.execute("SELECT current_setting('app.tenant', true)").fetchone(),
            b.execute("SELECT current_setting('app.tenant', true)").fetchone())
        with a.transaction():
            a.execute("SET LOCAL work_mem = '77MB'")
            say(a.execute("SHOW work_mem").fetchone(), b.execute("SHOW work_mem").fetchone())
        say(a.execute("SHOW work_mem").fetchone())
        a.execute("CREATE TEMP TABLE mine (id int)")
        a.execute("INSERT INTO mine VALUES (1)")
        say(a.execute("SELECT * FROM mine").fetchall(), refused(b, "SELECT * FROM mine"))
        say(a.execute("SELECT pg_try_advisory_lock(9)").fetchone(), b.execute("SELECT pg_try_advisory_lock(9)").fetchone())
        a.execute("SELECT pg_advisory_unlock(9)")
        say(b.execute("SELECT pg_try_advisory_lock(9), pg_advisory_unlock(9)").fetchone())
        with a.transaction():
            a.execute("SELECT pg_advisory_xact_lock(10)")
            say(b.execute("SELECT pg_try_advisory_xact_lock(10)").fetchone())
        say(b.execute("SELECT pg_try_advisory_xact_lock(10)").fetchone())
        a.execute("CREATE TABLE numbered (id serial, v int)")
        a.execute("INSERT INTO numbered (v) VALUES (1), (2)")
        say(a.execute("SELECT currval('numbered_id_seq'), lastval()").fetchone())
        a.execute("DISCARD ALL")
        say(refused(a, "SELECT * FROM mine"), a.execute("SHOW TimeZone").fetchone())


def reads():
    with connect() as conn:
        say(conn.execute("SELECT pg_is_in_recovery()").fetchone(), conn.info.parameter_status("in_hot_standby"))
        say(conn.execute("SELECT count(*), sum(id) FROM filled WHERE id > %s", [10]).fetchone())
        with conn.cursor(name="wander") as cur:
            cur.execute("SELECT * FROM filled ORDER BY id")
            say(hashlib.sha256(repr(cur.fetchall()).encode()).hexdigest())
        say(refused(conn, "INSERT INTO filled VALUES (0)"))
        conn.rollback()
        say(refused(conn, "CREATE TEMP TABLE nothing (id int)"))
        conn.rollback()
        with conn.cursor().copy("COPY filled TO STDOUT") as copy:
            say(sum(len(block) for block in copy))
        with conn.pipeline():
            say(sum(conn.execute("SELECT %s::int", [i]).fetchone()[0] for i in range(100)))
        conn.rollback()
    for wanted in ["any", "read-only", "standby", "read-write", "primary", "prefer-standby"]:
        try:
            with connect(target_session_attrs=wanted) as conn:
                say(wanted, conn.execute("SELECT pg_is_in_recovery()").fetchone())
        except psycopg.OperationalError:
            say(wanted, "refused")
    values()
    large_results()


def targets():
    for wanted in ["any", "read-write", "primary", "read-only", "standby"]:
        try:
            with connect(target_session_attrs=wanted) as conn:
                say(wanted, conn.execute("SELECT pg_is_in_recovery()").fetchone())
        except psycopg.OperationalError:
            say(wanted, "refused")


def split():
    """Through the port that splits: what was written is seen at once, and reads of every kind have time for replicas."""
    database = os.environ["PGDATABASE"]
    read = "SELECT v FROM kept WHERE id = {} /* " + database + " {}. */"
    with connect(autocommit=True) as conn:
        simple = psycopg.ClientCursor(conn)

        def seen():
            yield simple.execute(read.format(1, "simple")).fetchone()
            yield conn.execute(read.format("%s", "extended"), [1], prepare=False).fetchone()
            yield conn.execute(read.format("%s", "prepared"), [1], prepare=True).fetchone()
            with conn.pipeline():
                asked = [conn.execute(read.format("%s", "pipeline"), [1], prepare=True) for _ in range(3)]
            for cursor in asked:
                yield cursor.fetchone()

        for number in range(1, 21):
            conn.execute(f"UPDATE kept SET v = v + 1 WHERE id = %s /* {database} write. */", [1], prepare=True)
            assert all(row == (number,) for row in seen())
            time.sleep(0.04)
            assert all(row == (number,) for row in seen())


LIFE = [greeting, targets, values, large_results, transactions, two_phases, prepared, server_cursors, copies, pipelines, bare_pipelines,
        notifications, cancels, concurrency, broken_off, session_state]
SHORT = [greeting, values, transactions, copies, pipelines, bare_pipelines]

wanted = {"life": LIFE, "short": SHORT, "reads": [reads], "concurrency": [concurrency], "split": [split]}[sys.argv[1]]
for part in wanted:
    say("==", part.__name__)
    started = time.monotonic()
    part()
    if "TIMES" in os.environ:
        print(part.__name__, round(time.monotonic() - started, 2), file=sys.stderr)
