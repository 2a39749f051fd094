-- Who names the first relation reaches what naming the second does.
SELECT DISTINCT u.relname::text, v.relname::text
  FROM (SELECT r.ev_class AS outer_oid, d.refobjid AS inner_oid
          FROM pg_depend d JOIN pg_rewrite r ON r.oid = d.objid
         WHERE d.classid = 'pg_rewrite'::regclass AND d.refclassid = 'pg_class'::regclass AND r.oid >= 16384
           AND r.ev_class <> d.refobjid
        UNION ALL
        SELECT i.inhparent, i.inhrelid FROM pg_inherits i
        UNION ALL
        SELECT o.confrelid, o.conrelid FROM pg_constraint o
         WHERE o.contype = 'f' AND o.confrelid <> o.conrelid
        UNION ALL
        SELECT p.polrelid, d.refobjid
          FROM pg_depend d JOIN pg_policy p ON p.oid = d.objid
         WHERE d.classid = 'pg_policy'::regclass AND d.refclassid = 'pg_class'::regclass AND p.polrelid <> d.refobjid
       ) e
  JOIN pg_class u ON u.oid = e.outer_oid AND u.relkind IN ('r', 'p', 'v', 'm', 'f')
  JOIN pg_class v ON v.oid = e.inner_oid AND v.relkind IN ('r', 'p', 'v', 'm', 'f')
 WHERE u.relpersistence <> 't' AND v.relpersistence <> 't'
 LIMIT $1
