-- Who reads the first relation reads the second.
SELECT DISTINCT p.relname::text, c.relname::text
  FROM pg_inherits i
  JOIN pg_class p ON p.oid = i.inhparent AND p.relkind IN ('r', 'p', 'f')
  JOIN pg_class c ON c.oid = i.inhrelid
 WHERE c.relpersistence <> 't'
 LIMIT $1
