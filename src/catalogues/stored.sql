-- Queries and expressions that are run where a relation or domain is named.
SELECT 'query', c.relname::text, pg_get_viewdef(c.oid)
  FROM pg_class c
 WHERE c.relkind = 'v' AND c.oid >= 16384 AND c.relpersistence <> 't'
UNION ALL
SELECT 'expression', c.relname::text, pg_get_expr(p.polqual, p.polrelid)
  FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
 WHERE c.relrowsecurity AND p.polqual IS NOT NULL
UNION ALL
-- Virtual columns.
SELECT 'expression', c.relname::text, pg_get_expr(d.adbin, d.adrelid)
  FROM pg_attrdef d
  JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum AND a.attgenerated NOT IN ('', 's')
  JOIN pg_class c ON c.oid = d.adrelid
UNION ALL
SELECT 'check', t.typname::text, pg_get_expr(o.conbin, 0)
  FROM pg_constraint o JOIN pg_type t ON t.oid = o.contypid
 WHERE o.contype = 'c' AND o.oid >= 16384
 LIMIT $1
