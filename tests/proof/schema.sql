-- Every kind of object that decides where a statement may run.
CREATE SCHEMA app;
CREATE TABLE users (id int PRIMARY KEY, name text, email text, created timestamptz DEFAULT now(), tags text[], doc jsonb);
INSERT INTO users SELECT i, 'n' || i, 'e' || i || '@x', '2020-01-01', ARRAY['a','b'], '{"a": {"b": 1}}' FROM generate_series(1, 20) i;
CREATE TABLE orders (id int PRIMARY KEY, user_id int REFERENCES users, total numeric(10,2), at timestamptz, note text, "Mixed Case" int);
INSERT INTO orders SELECT i, 1 + i % 20, i * 1.5, '2021-01-01', 'note ' || i, i FROM generate_series(1, 60) i;
CREATE TABLE "Quoted Table" (a int, "select" int);
CREATE TABLE app.things (id serial PRIMARY KEY, size int GENERATED ALWAYS AS (1 + 1) STORED, v varchar(20), r int4range, p point);
INSERT INTO app.things (v, r, p) VALUES ('x', '[1,5)', '(1,2)');
CREATE TABLE docs (id int, body text, v tsvector, x xml);
CREATE UNLOGGED TABLE scratch (id int, v text);
CREATE TABLE app.sessions (id int);
CREATE UNLOGGED TABLE sessions (id int);
CREATE SEQUENCE ticket;
CREATE TABLE measures (at date, v int) PARTITION BY RANGE (at);
CREATE TABLE measures_1 PARTITION OF measures FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE hot (at date, v int) PARTITION BY RANGE (at);
CREATE UNLOGGED TABLE hot_1 PARTITION OF hot FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE hot_2 PARTITION OF hot FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
CREATE TABLE parent (a int);
CREATE TABLE child (b int) INHERITS (parent);
CREATE TABLE refers (id int REFERENCES users);
CREATE FOREIGN DATA WRAPPER far;
CREATE SERVER far FOREIGN DATA WRAPPER far;
CREATE FOREIGN TABLE remote (id int) SERVER far;
CREATE TABLE mixed (a int) PARTITION BY LIST (a);
CREATE FOREIGN TABLE mixed_far PARTITION OF mixed FOR VALUES IN (1) SERVER far;

-- Functions of all kinds.
CREATE FUNCTION f_sql(i int) RETURNS int LANGUAGE sql AS 'SELECT i + 1';
CREATE FUNCTION f_reads(i int) RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM orders WHERE user_id = i';
CREATE FUNCTION f_nested(i int) RETURNS bigint LANGUAGE sql AS 'SELECT f_reads(i) + f_sql(1)';
CREATE FUNCTION f_atomic(i int) RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM orders WHERE id > i; END;
CREATE FUNCTION f_return(i int) RETURNS int LANGUAGE sql RETURN i * 2;
CREATE FUNCTION f_plpgsql(i int) RETURNS text LANGUAGE plpgsql AS $$
DECLARE u users%ROWTYPE; n int := 0; c CURSOR FOR SELECT id FROM orders;
BEGIN
  SELECT * INTO u FROM users WHERE id = i;
  IF NOT FOUND THEN RETURN NULL; END IF;
  FOR n IN SELECT id FROM orders LOOP n := n + 1; END LOOP;
  FOR k IN 1..3 LOOP CONTINUE WHEN k = 2; END LOOP;
  BEGIN PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN n := f_sql(n); END;
  RAISE DEBUG 'n is %', n;
  RETURN u.name || n;
END$$;
CREATE FUNCTION f_rows() RETURNS SETOF users LANGUAGE plpgsql STABLE AS $$BEGIN RETURN QUERY SELECT * FROM users; END$$;
CREATE FUNCTION f_table(i int) RETURNS TABLE (a int, b text) LANGUAGE sql STABLE AS 'SELECT id, name FROM users WHERE id < i';
CREATE FUNCTION f_dynamic(s text) RETURNS int LANGUAGE plpgsql AS $$DECLARE r int; BEGIN EXECUTE s INTO r; RETURN r; END$$;
CREATE FUNCTION f_writes(i int) RETURNS int LANGUAGE sql AS 'INSERT INTO scratch VALUES (i); SELECT 1';
CREATE FUNCTION f_deletes() RETURNS int LANGUAGE plpgsql AS $$BEGIN DELETE FROM orders WHERE id < 0; RETURN 1; END$$;
CREATE FUNCTION f_draws() RETURNS bigint LANGUAGE plpgsql STABLE AS $$BEGIN RETURN nextval('ticket'); END$$;
CREATE FUNCTION f_over_draws() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT f_draws()';
CREATE FUNCTION f_xid() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT txid_current()';
CREATE FUNCTION f_locks(i int) RETURNS int LANGUAGE sql AS 'SELECT id FROM users WHERE id = i FOR UPDATE';
CREATE FUNCTION f_advises() RETURNS void LANGUAGE sql STABLE AS 'SELECT pg_advisory_xact_lock(1)';
CREATE FUNCTION f_unlogged() RETURNS bigint LANGUAGE sql STABLE AS 'SELECT count(*) FROM scratch';
CREATE FUNCTION f_notifies() RETURNS void LANGUAGE plpgsql AS $$BEGIN NOTIFY x; END$$;
CREATE FUNCTION f_default(i int DEFAULT nextval('ticket')) RETURNS int LANGUAGE sql AS 'SELECT i';
CREATE FUNCTION f_path(i int) RETURNS int LANGUAGE sql SET search_path = app AS 'SELECT count(*)::int FROM things';
CREATE FUNCTION f_sets() RETURNS text LANGUAGE sql AS $$SELECT set_config('app.x', '1', true)$$;
CREATE FUNCTION f_tenant() RETURNS int LANGUAGE sql STABLE AS $$SELECT current_setting('app.tenant', true)::int$$;
CREATE FUNCTION f_view() RETURNS bigint LANGUAGE plpgsql STABLE AS $$BEGIN RETURN (SELECT count(*) FROM v_draws); END$$;
CREATE FUNCTION f_temp() RETURNS void LANGUAGE plpgsql AS $$BEGIN CREATE TEMP TABLE zz (a int); END$$;
CREATE FUNCTION f_backend() RETURNS int LANGUAGE sql STABLE AS 'SELECT pg_backend_pid()';
CREATE FUNCTION app.f_sql(t text) RETURNS text LANGUAGE sql AS 'SELECT t';
CREATE FUNCTION mixed_up(i int) RETURNS int LANGUAGE sql AS 'SELECT i';
CREATE FUNCTION app.mixed_up(t text) RETURNS bigint LANGUAGE sql AS $$SELECT nextval('ticket')$$;
CREATE FUNCTION of_user(users) RETURNS text LANGUAGE sql AS 'SELECT $1.name';
CREATE FUNCTION touch(users) RETURNS bigint LANGUAGE sql AS $$SELECT nextval('ticket')$$;
CREATE FUNCTION initcap(users) RETURNS bigint LANGUAGE sql AS $$SELECT nextval('ticket')$$;
CREATE FUNCTION lower(users) RETURNS text LANGUAGE sql AS $$SELECT lower($1.name)$$;
CREATE PROCEDURE p_reads() LANGUAGE sql AS 'SELECT 1';
CREATE AGGREGATE sums(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
CREATE FUNCTION adds_drawing(int, int) RETURNS int LANGUAGE sql AS $$SELECT ($1 + nextval('ticket'))::int$$;
CREATE AGGREGATE draws(int) (SFUNC = adds_drawing, STYPE = int, INITCOND = '0');
CREATE FUNCTION "Mixed Fn"() RETURNS int LANGUAGE sql AS 'SELECT 1';

-- Views.
CREATE VIEW v_users AS SELECT id, lower(name) AS name FROM users WHERE f_sql(id) > 1;
CREATE VIEW v_over AS SELECT v_users.name, o.* FROM v_users JOIN orders o ON o.user_id = v_users.id;
CREATE VIEW v_draws AS SELECT nextval('ticket') AS n;
CREATE VIEW v_over_draws AS SELECT * FROM v_draws;
CREATE VIEW v_scratch AS SELECT * FROM scratch;
CREATE VIEW v_function AS SELECT f_xid() AS x;
CREATE VIEW v_stat AS SELECT pid FROM pg_stat_activity;
CREATE VIEW v_catalog AS SELECT relname FROM pg_class;
CREATE MATERIALIZED VIEW m_draws AS SELECT nextval('ticket') AS n;
CREATE VIEW v_sequence AS SELECT last_value FROM ticket;
CREATE VIEW v_lock AS SELECT id FROM users FOR UPDATE;

-- Policies, rules, triggers, columns made up.
CREATE TABLE tenants (id int, tenant int);
ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON tenants USING (tenant = current_setting('app.tenant', true)::int);
CREATE TABLE watched (id int);
ALTER TABLE watched ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON watched USING (f_draws() > 0);
CREATE TABLE off (id int);
CREATE POLICY p ON off USING (f_draws() > 0);
CREATE TABLE peeked (id int);
ALTER TABLE peeked ENABLE ROW LEVEL SECURITY;
CREATE POLICY p ON peeked USING (EXISTS (SELECT FROM scratch s WHERE s.id = peeked.id));
CREATE FUNCTION on_write() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM nextval('ticket'); RETURN NEW; END$$;
CREATE TABLE triggered (id int DEFAULT nextval('ticket'));
CREATE TRIGGER t BEFORE INSERT ON triggered FOR EACH ROW EXECUTE FUNCTION on_write();
CREATE TABLE ruled (id int);
CREATE RULE r AS ON INSERT TO ruled DO ALSO SELECT nextval('ticket');

-- Operators, casts, domains, types.
CREATE FUNCTION near(int, int) RETURNS bool LANGUAGE sql IMMUTABLE AS 'SELECT abs($1 - $2) < 2';
CREATE OPERATOR <~> (FUNCTION = near, LEFTARG = int, RIGHTARG = int);
CREATE FUNCTION odd(int, int) RETURNS bool LANGUAGE sql AS $$SELECT nextval('ticket') > 0$$;
CREATE OPERATOR <!> (FUNCTION = odd, LEFTARG = int, RIGHTARG = int);
CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TYPE pair AS (a int, b int);
CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN drawn AS int CHECK (VALUE < nextval('ticket') + 1000000000);
CREATE FUNCTION takes_drawn(drawn) RETURNS int LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION gives_drawn() RETURNS drawn LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION holds_drawn() RETURNS int LANGUAGE plpgsql AS $$DECLARE d drawn; BEGIN d := 1; RETURN d; END$$;
CREATE FUNCTION pair_to_text(pair) RETURNS text LANGUAGE sql AS $$SELECT nextval('ticket')::text$$;
CREATE TYPE triple AS (a int, b int, c int);
CREATE FUNCTION pair_to_triple(pair) RETURNS triple LANGUAGE sql AS $$SELECT ROW($1.a, $1.b, nextval('ticket')::int)::triple$$;
CREATE CAST (pair AS triple) WITH FUNCTION pair_to_triple(pair);
CREATE TABLE moods (id int, m mood, p positive, d drawn);
INSERT INTO moods VALUES (1, 'ok', 1, NULL);

-- Who is held by policies.
CREATE ROLE app LOGIN;
GRANT USAGE ON SCHEMA app TO app;
GRANT ALL ON ALL TABLES IN SCHEMA public, app TO app;
