-- psql's life: its own commands, and what it does behind them.
\set ON_ERROR_STOP 0
\pset pager off
\timing off
CREATE TABLE p (id int PRIMARY KEY, v text, at timestamptz);
\d p
\dt
\df pg_sleep
\l template*
INSERT INTO p SELECT i, 'v' || i, '2024-01-01' FROM generate_series(1, 10) i RETURNING id \gset last_
\echo :last_id
SELECT id, v FROM p WHERE id < 3 \gdesc
SELECT 'SELECT ' || i FROM generate_series(1, 3) i \gexec
SELECT * FROM p WHERE id = $1 \bind 5 \g
SELECT 1 AS a, 2 AS b \gx
SELECT id, id % 2, id FROM p WHERE id < 4 \crosstabview
\copy p TO 'copied.txt'
\copy (SELECT id FROM p ORDER BY id DESC) TO STDOUT WITH (FORMAT csv)
CREATE TABLE q (LIKE p);
\copy q FROM 'copied.txt'
SELECT count(*) FROM q;
COPY q FROM STDIN;
11	eleven	\N
12	\N	2024-01-01
\.
COPY q FROM STDIN;
x	broken	\N
\.
SELECT count(*) FROM q;
\set FETCH_COUNT 3
SELECT id FROM p ORDER BY id;
\unset FETCH_COUNT
\set ON_ERROR_ROLLBACK on
BEGIN;
INSERT INTO p VALUES (1);
INSERT INTO p VALUES (100);
COMMIT;
\set ON_ERROR_ROLLBACK off
SELECT count(*) FROM p;
\set AUTOCOMMIT off
INSERT INTO p VALUES (200);
ROLLBACK;
\set AUTOCOMMIT on
SELECT count(*) FROM p WHERE id = 200;
SELECT 1 \; SELECT 2 \; SELECT 1/0 \; SELECT 3;
\encoding LATIN1
SHOW client_encoding;
\encoding UTF8
\c
SELECT 'after reconnecting';
CREATE SEQUENCE s;
SELECT CASE WHEN nextval('s') > 3 THEN 1/0 ELSE 5 END AS seen \watch 0.05
SELECT currval('s');
SELECT 1/0;
\echo :SQLSTATE :ERROR :ROW_COUNT
EXPLAIN (COSTS OFF) SELECT * FROM p WHERE id = 1;
VACUUM p;
CREATE INDEX CONCURRENTLY by_v ON p (v);
\d p
DO $$BEGIN RAISE NOTICE 'noticed'; END$$;
