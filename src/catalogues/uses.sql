-- Functions that are used through operators, casts and, the other way round, domains through what functions take and give.
-- C code is taken on trust there.
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
-- Sorting, grouping and indexes call these of a user's operator class or range without a name.
SELECT 'implicit', '', p.proname::text
  FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang
 WHERE p.oid >= 16384 AND l.lanname <> 'c'
   AND p.oid IN (SELECT a.amproc::oid FROM pg_amproc a
                  UNION SELECT o.oprcode::oid FROM pg_amop a JOIN pg_operator o ON o.oid = a.amopopr
                  UNION SELECT r.rngcanonical::oid FROM pg_range r
                  UNION SELECT r.rngsubdiff::oid FROM pg_range r)
UNION ALL
-- What a function takes and gives.
SELECT DISTINCT 'argument', t.typname::text, p.proname::text
  FROM pg_proc p
  CROSS JOIN LATERAL unnest(coalesce(p.proallargtypes, p.proargtypes::oid[]) || p.prorettype) AS a(type)
  JOIN pg_type t ON t.oid = a.type AND t.typtype = 'd' AND t.oid >= 16384
 WHERE p.oid >= 16384
 LIMIT $1
