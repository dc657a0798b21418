//! What would become of a request, asked without making it: simulations of exact requests, and the two
//! questions with gaps, "what can they do" and "who can do that".
//!
//! All three go through the evaluator that decides real requests, with the same policies, so an answer here
//! and a decision there cannot come apart.

mod context;
mod forecast;
mod matter;
mod routes;
mod run;
mod store;
mod types;

pub(super) use routes::router;
