-- What runs a function that no text names: how it is reached, through which relation, which function (NULL: a harmful
-- built-in one). $1 finds the calls of these in a stored expression, $2 are they.
WITH uses AS (
    SELECT d.classid, d.objid, d.refobjid AS function
      FROM pg_depend d
     WHERE d.refclassid = 'pg_proc'::regclass AND d.refobjid >= 16384
       AND d.classid NOT IN ('pg_proc'::regclass, 'pg_extension'::regclass)
    UNION ALL
    SELECT 'pg_rewrite'::regclass, r.oid, NULL FROM pg_rewrite r
     WHERE r.oid >= 16384 AND (r.ev_action::text ~ $1 OR r.ev_qual::text ~ $1)
    UNION ALL
    SELECT 'pg_policy'::regclass, p.oid, NULL FROM pg_policy p
     WHERE p.polqual::text ~ $1 OR p.polwithcheck::text ~ $1
    UNION ALL
    SELECT 'pg_attrdef'::regclass, a.oid, NULL FROM pg_attrdef a WHERE a.adbin::text ~ $1
    UNION ALL
    SELECT 'pg_constraint'::regclass, o.oid, NULL FROM pg_constraint o
     WHERE o.oid >= 16384 AND o.conbin::text ~ $1
    UNION ALL
    SELECT 'pg_trigger'::regclass, t.oid, NULL FROM pg_trigger t
     WHERE t.tgqual::text ~ $1 OR t.tgfoid = ANY ($2)
    UNION ALL
    SELECT 'pg_class'::regclass, i.indexrelid, NULL FROM pg_index i
     WHERE i.indexrelid >= 16384 AND (i.indexprs::text ~ $1 OR i.indpred::text ~ $1)
    UNION ALL
    SELECT 'pg_operator'::regclass, o.oid, NULL FROM pg_operator o WHERE o.oid >= 16384 AND o.oprcode = ANY ($2)
    UNION ALL
    SELECT 'pg_cast'::regclass, c.oid, NULL FROM pg_cast c WHERE c.oid >= 16384 AND c.castfunc = ANY ($2)
    UNION ALL
    SELECT 'pg_type'::regclass, t.oid, NULL FROM pg_type t WHERE t.oid >= 16384 AND t.typdefaultbin::text ~ $1
)
SELECT CASE
         WHEN u.classid IN ('pg_rewrite'::regclass, 'pg_policy'::regclass) THEN 'naming'
         WHEN u.classid = 'pg_attrdef'::regclass AND v.attgenerated NOT IN ('', 's') THEN 'naming'
         WHEN u.classid IN ('pg_attrdef'::regclass, 'pg_trigger'::regclass) THEN 'writing'
         WHEN u.classid = 'pg_constraint'::regclass AND o.conrelid <> 0 THEN 'writing'
         WHEN u.classid = 'pg_class'::regclass THEN 'index'
         WHEN u.classid = 'pg_event_trigger'::regclass THEN 'defining'
         ELSE 'anything'
       END,
       coalesce(c.relname::text, ''),
       u.function
  FROM uses u
  LEFT JOIN pg_rewrite r ON u.classid = 'pg_rewrite'::regclass AND r.oid = u.objid
  LEFT JOIN pg_policy p ON u.classid = 'pg_policy'::regclass AND p.oid = u.objid
  LEFT JOIN pg_attrdef a ON u.classid = 'pg_attrdef'::regclass AND a.oid = u.objid
  LEFT JOIN pg_attribute v ON v.attrelid = a.adrelid AND v.attnum = a.adnum
  LEFT JOIN pg_constraint o ON u.classid = 'pg_constraint'::regclass AND o.oid = u.objid
  LEFT JOIN pg_trigger t ON u.classid = 'pg_trigger'::regclass AND t.oid = u.objid
  LEFT JOIN pg_index i ON u.classid = 'pg_class'::regclass AND i.indexrelid = u.objid
  LEFT JOIN pg_class c ON c.oid = coalesce(r.ev_class, p.polrelid, a.adrelid, nullif(o.conrelid, 0), t.tgrelid,
                                           i.indrelid, CASE WHEN u.classid = 'pg_class'::regclass THEN u.objid END)
 WHERE c.relpersistence IS DISTINCT FROM 't'
   AND u.classid NOT IN ('pg_language'::regclass, 'pg_foreign_data_wrapper'::regclass)
 LIMIT $3
