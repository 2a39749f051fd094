-- Functions that are used through operators, casts and, the other way round, domains through functions' arguments. C code
-- is taken on trust there.
SELECT 'operator', o.oprname::text, p.proname::text
  FROM pg_operator o
  JOIN pg_proc p ON p.oid IN (o.oprcode, o.oprrest, o.oprjoin)
  JOIN pg_language l ON l.oid = p.prolang
 WHERE o.oid >= 16384 AND l.lanname <> 'c'
UNION ALL
SELECT CASE WHEN x.castcontext = 'i' THEN 'implicit' ELSE 'cast' END, t.typname::text, p.proname::text
  FROM pg_cast x
  JOIN pg_proc p ON p.oid = x.castfunc
  JOIN pg_type t ON t.oid = x.casttarget
  JOIN pg_language l ON l.oid = p.prolang
 WHERE x.oid >= 16384 AND l.lanname <> 'c'
UNION ALL
SELECT 'argument', t.typname::text, p.proname::text
  FROM pg_proc p
  CROSS JOIN LATERAL unnest(p.proargtypes::oid[]) AS a(type)
  JOIN pg_type t ON t.oid = a.type AND t.typtype = 'd' AND t.oid >= 16384
 WHERE p.oid >= 16384
 LIMIT $1
