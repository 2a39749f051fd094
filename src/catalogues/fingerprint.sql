-- Rows that users made, by their object and the transaction that wrote the version; of relations only their
-- names and kinds, since statistics are written in place and temporary ones come and go.
SELECT concat_ws(',',
    (SELECT concat(count(*), ':', sum(hashtextextended(xmin::text, oid::int8))) FROM pg_proc WHERE oid >= 16384),
    (SELECT concat(count(*), ':', sum(hashtextextended(xmin::text, oid::int8))) FROM pg_trigger),
    (SELECT concat(count(*), ':', sum(hashtextextended(xmin::text, oid::int8))) FROM pg_rewrite WHERE oid >= 16384),
    (SELECT concat(count(*), ':', sum(hashtextextended(xmin::text, oid::int8))) FROM pg_policy),
    (SELECT concat(count(*), ':', sum(hashtextextended(d.xmin::text, d.oid::int8)))
       FROM pg_attrdef d JOIN pg_class c ON c.oid = d.adrelid AND c.relpersistence <> 't'),
    (SELECT concat(count(*), ':', sum(hashtextextended(o.xmin::text, o.oid::int8)))
       FROM pg_constraint o LEFT JOIN pg_class c ON c.oid = o.conrelid
      WHERE o.oid >= 16384 AND c.relpersistence IS DISTINCT FROM 't'),
    (SELECT concat(count(*), ':', sum(hashtextextended(xmin::text, oid::int8))) FROM pg_operator WHERE oid >= 16384),
    (SELECT concat(count(*), ':', sum(hashtextextended(xmin::text, oid::int8))) FROM pg_cast WHERE oid >= 16384),
    (SELECT concat(count(*), ':', sum(hashtextextended(xmin::text, oid::int8))) FROM pg_amproc WHERE oid >= 16384),
    (SELECT concat(count(*), ':', sum(hashtextextended(xmin::text, aggfnoid::int8))) FROM pg_aggregate WHERE aggfnoid >= 16384),
    (SELECT concat(count(*), ':', sum(hashtextextended(xmin::text, oid::int8))) FROM pg_event_trigger),
    (SELECT concat(count(*), ':', sum(hashtextextended(xmin::text, oid::int8))) FROM pg_extension),
    (SELECT concat(count(*), ':', sum(hashtextextended(xmin::text, oid::int8))) FROM pg_namespace WHERE nspname !~ '^pg_(toast_)?temp_'),
    (SELECT concat(count(*), ':', sum(hashtextextended(i.xmin::text, i.inhrelid::int8 # i.inhparent::int8))) FROM pg_inherits i),
    (SELECT concat(count(*), ':', sum(hashtextextended(t.xmin::text, t.oid::int8)))
       FROM pg_type t LEFT JOIN pg_class c ON c.oid = t.typrelid
      WHERE t.oid >= 16384 AND t.typtype IN ('b', 'd', 'r') AND t.typelem = 0),
    (SELECT concat(count(*), ':', sum(hashtextextended(concat(relname, ' ', relkind, relpersistence, relrowsecurity),
                                                       oid::int8 # relnamespace::int8)))
       FROM pg_class WHERE oid >= 16384 AND relpersistence <> 't' AND relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 'i', 'I')))
