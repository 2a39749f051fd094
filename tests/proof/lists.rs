//! The lists of what is built in, held to what real servers have.

use common::{TestCluster, per_version};
use pgsluice::route::{
    functions::{Verdict, verdict},
    primary,
};

use crate::common;

/// Every function that a statement can call, and how it changes.
const FUNCTIONS: &str = "
    SELECT p.oid, p.proname, p.provolatile = 'v'
      FROM pg_proc p
     WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.oid < 16384";

/// Views that call one of these functions, or are over such a view. Those of information_schema ask only for what tables
/// are other sessions' temporary ones, and a session with temporary tables reads nothing elsewhere.
const VIEWS: &str = "
    WITH RECURSIVE calls AS (
        SELECT r.ev_class AS view
          FROM pg_rewrite r, LATERAL regexp_matches(r.ev_action::text, ':(?:funcid|opfuncid) (\\d+)', 'g') AS m(oid)
         WHERE r.oid < 16384 AND m.oid[1]::oid = ANY ('{OIDS}')
    ), over AS (
        SELECT DISTINCT r.ev_class AS view, m.oid[1]::oid AS used
          FROM pg_rewrite r, LATERAL regexp_matches(r.ev_action::text, ':relid (\\d+)', 'g') AS m(oid)
         WHERE r.oid < 16384
    ), found AS (
        SELECT view FROM calls
        UNION
        SELECT o.view FROM over o JOIN found f ON o.used = f.view AND o.view <> f.view
    )
    SELECT c.relname FROM found JOIN pg_class c ON c.oid = found.view
     WHERE c.relnamespace = 'pg_catalog'::regnamespace";

/// Whether a call of this built-in name can be part of a proven read.
fn is_readable(name: &str, major: u8) -> bool {
    verdict(name.as_bytes(), major) == Verdict::Harmless && !primary::needs_primary(name.as_bytes())
}

per_version! {
    fn every_built_in_function_and_view_is_known_to_answer_alike_or_stays_on_the_primary(pg) {
        let major = u8::try_from(pg.binaries().major()).unwrap();
        let cluster = TestCluster::new(&pg, 0);
        let functions = cluster.primary().sql(FUNCTIONS).unwrap();
        let mut unfit = Vec::new();
        let mut readable = 0;
        for row in &functions {
            let (oid, name) = (row[0].as_deref().unwrap(), row[1].as_deref().unwrap());
            let is_volatile = row[2].as_deref() == Some("t");
            let is_allowed = primary::VOLATILE.contains(&name);
            let is_readable = is_readable(name, major);
            readable += usize::from(is_readable);
            assert!(!is_volatile || is_allowed || !is_readable, "{name} is volatile");
            let pins = matches!(verdict(name.as_bytes(), major), Verdict::Pins(_));
            if pins || primary::needs_primary(name.as_bytes()) {
                unfit.push(oid);
            }
        }
        assert!(readable > 1500 && unfit.len() > 200, "{readable}, {}", unfit.len());
        for name in primary::VOLATILE {
            assert!(is_readable(name, 18), "{name}");
        }
        let views = cluster.primary().sql(&VIEWS.replace("OIDS", &unfit.join(",")));
        let views = views.unwrap();
        assert!(views.len() > 50, "{}", views.len());
        for view in &views {
            let name = view[0].as_deref().unwrap();
            assert!(primary::is_view_of_primary(name.as_bytes()), "{name}");
        }
    }
}
