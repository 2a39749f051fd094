//! Logins against a real PostgreSQL: by ourselves, and by psql through the smallest proxy there can be.

mod cluster;
mod dialling;
mod front;
mod hostile;
mod through;
