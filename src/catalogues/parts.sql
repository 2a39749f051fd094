-- Functions that a function runs without its body saying so; NULL for a built-in one that is not harmless.
-- Aggregates: $2 are the harmful built-in ones, whose calls in an expression $1 finds.
SELECT a.aggfnoid::oid, nullif(f.oid, CASE WHEN f.oid < 16384 THEN f.oid END)
  FROM pg_aggregate a,
       LATERAL unnest(ARRAY[a.aggtransfn, a.aggfinalfn, a.aggcombinefn, a.aggserialfn, a.aggdeserialfn, a.aggmtransfn,
                            a.aggminvtransfn, a.aggmfinalfn]::oid[]) AS f(oid)
 WHERE a.aggfnoid >= 16384 AND (f.oid >= 16384 OR f.oid = ANY ($2))
UNION ALL
-- Defaults of arguments, bodies of standard SQL.
SELECT d.objid, d.refobjid
  FROM pg_depend d
 WHERE d.classid = 'pg_proc'::regclass AND d.refclassid = 'pg_proc'::regclass AND d.refobjid >= 16384
UNION ALL
SELECT p.oid, NULL::oid
  FROM pg_proc p
 WHERE p.oid >= 16384 AND p.proargdefaults IS NOT NULL AND p.proargdefaults::text ~ $1
 LIMIT $3
