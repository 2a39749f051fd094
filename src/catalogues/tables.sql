-- What FROM may name; what is a table's kind to a replica, and whether it is built in.
SELECT n.nspname::text, c.relname::text,
       CASE WHEN c.relkind = 'S' THEN 'sequence' WHEN c.relkind = 'f' THEN 'foreign'
            WHEN c.relpersistence = 'u' THEN 'unlogged' ELSE 'replicated' END,
       c.oid < 16384
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f', 'S', 't') AND c.relpersistence <> 't'
 LIMIT $1
