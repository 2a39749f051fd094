//! `[[login]]`: what is different for the reads of some logins.

use std::time::Duration;

use super::{Config, Consistency, ReadTransactions, Reads, RulePlace};

/// What is different from `[reads]` for the sessions of a user, of a database, or of both.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Login {
    /// None: any.
    pub user: Option<String>,
    /// None: any.
    pub database: Option<String>,
    pub consistency: Option<Consistency>,
    pub max_staleness: Option<Duration>,
    pub transactions: Option<ReadTransactions>,
    pub place: Option<RulePlace>,
}

impl Login {
    fn is_of(&self, user: &str, database: &str) -> bool {
        let is = |asked: &Option<String>, name: &str| asked.as_ref().is_none_or(|it| it == name);
        is(&self.user, user) && is(&self.database, database)
    }

    /// Who names more wins, and who names the user over who names the database.
    fn rank(&self) -> u8 {
        u8::from(self.user.is_some()) * 2 + u8::from(self.database.is_some())
    }
}

impl Config {
    /// What holds for the reads of such a login, key by key: what is said of the user and the database, else of the user, else
    /// of the database, else of all.
    pub fn reads_of(&self, user: &str, database: &str) -> Reads {
        let mut logins: Vec<_> = self.logins.iter().collect();
        logins.retain(|login| login.is_of(user, database));
        logins.sort_by_key(|login| login.rank());
        logins.into_iter().fold(self.reads, |reads, login| Reads {
            consistency: login.consistency.unwrap_or(reads.consistency),
            max_staleness: login.max_staleness.unwrap_or(reads.max_staleness),
            transactions: login.transactions.unwrap_or(reads.transactions),
            place: login.place.unwrap_or(reads.place),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_names_more_wins_key_by_key() {
        let named = |user: &str, database: &str| Login {
            user: (!user.is_empty()).then(|| user.to_owned()),
            database: (!database.is_empty()).then(|| database.to_owned()),
            ..Login::default()
        };
        let config = Config {
            logins: vec![
                Login {
                    consistency: Some(Consistency::Database),
                    ..named("report", "shop")
                },
                Login {
                    consistency: Some(Consistency::Eventual),
                    place: Some(RulePlace::Primary),
                    ..named("report", "")
                },
                Login {
                    consistency: Some(Consistency::OwnWrites),
                    place: Some(RulePlace::Replica),
                    max_staleness: Some(Duration::from_secs(1)),
                    ..named("", "shop")
                },
            ],
            ..Config::default()
        };
        let of = |user, database| {
            let reads = config.reads_of(user, database);
            (
                reads.consistency,
                reads.place,
                reads.max_staleness.as_secs(),
            )
        };
        use Consistency::{Database, Eventual, OwnWrites, Session};
        use RulePlace::{Primary, Replica};
        assert_eq!(of("app", "postgres"), (Session, Replica, 10));
        assert_eq!(of("app", "shop"), (OwnWrites, Replica, 1));
        assert_eq!(of("report", "postgres"), (Eventual, Primary, 10));
        assert_eq!(of("report", "shop"), (Database, Primary, 1));
    }
}
