SELECT p.oid, n.nspname::text, p.proname::text, l.lanname::text, p.prokind::text,
       {standard_body},
       CASE WHEN octet_length(p.prosrc) <= 1048576 THEN p.prosrc END,
       coalesce(p.proconfig, '{}'),
       (SELECT e.extname::text FROM pg_depend d JOIN pg_extension e ON e.oid = d.refobjid
         WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid
           AND d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e' LIMIT 1),
       p.pronargs > 0,
       pg_get_expr(p.proargdefaults, 0)
  FROM pg_proc p
  JOIN pg_namespace n ON n.oid = p.pronamespace
  JOIN pg_language l ON l.oid = p.prolang
 WHERE p.oid >= 16384 AND n.nspname !~ '^pg_temp_'
 LIMIT $1
