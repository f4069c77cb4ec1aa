//! What the stand-in says to whom: the contract's five questions (HLT-5 to HLT-9).

use std::sync::Arc;

use serde_json::{Value, json};

use crate::behaviour::{Behaviour, Policy};
use crate::http::{Handler, Request, Response};
use crate::sandbox;

/// The number of the contract that is kept (HLT-4).
const CONTRACT: u32 = 1;
/// A number that no client knows.
const UNKNOWN_CONTRACT: u32 = 99;
/// Digest of the policy that is pretended to be loaded.
const DIGEST: &str = "sha256:3a6eb0790f39ac87c94f3856b2dd2c5d110e6811602261a9a923d3bb23adc8b7";

/// Answers as told.
#[derive(Clone, Debug)]
pub struct Answers {
    behaviour: Arc<Behaviour>,
    version: Arc<str>,
}

impl Answers {
    /// Answers of version `version` that behaves like this.
    pub fn new(behaviour: &Arc<Behaviour>, version: &str) -> Self {
        Self { behaviour: Arc::clone(behaviour), version: version.into() }
    }

    fn health(&self) -> Value {
        let (state, detail) = if self.behaviour.health_failed { ("failed", "told to fail") } else { ("ready", "") };
        json!({ "state": state, "version": &*self.version, "detail": detail })
    }

    fn response(&self, status: u16, mut body: Value) -> Response {
        let contract = if self.behaviour.wrong_contract { UNKNOWN_CONTRACT } else { CONTRACT };
        body["contract"] = contract.into();
        Response { status, body: body.to_string() }
    }
}

impl Handler for Answers {
    fn answer(&self, request: &Request) -> Option<Response> {
        Some(match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/v1/health") => self.response(200, self.health()),
            ("GET", "/v1/policy") => match self.behaviour.policy {
                Policy::Loaded => self.response(200, json!({ "loaded": true, "digest": DIGEST, "name": "stand-in" })),
                Policy::NotLoaded => self.response(200, json!({ "loaded": false })),
                Policy::Hangs => return None,
            },
            ("GET", "/v1/sandbox") => self.response(200, json!({ "offered": self.behaviour.sandbox.is_some() })),
            ("POST", "/v1/sandbox/run") => match &self.behaviour.sandbox {
                None => self.response(404, json!({ "error": "no sandbox is offered" })),
                Some(without) => match sandbox::run(&request.body, without) {
                    Ok(ran) => self.response(200, ran),
                    Err(error) => self.response(500, json!({ "error": format!("{error:#}") })),
                },
            },
            _ => self.response(404, json!({ "error": "no such thing" })),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(behaviour: Behaviour, method: &str, path: &str) -> Option<(u16, Value)> {
        let answers = Answers::new(&Arc::new(behaviour), "2.0.0");
        let request = Request { method: method.into(), path: path.into(), body: vec![] };
        let response = answers.answer(&request)?;
        Some((response.status, serde_json::from_str(&response.body).expect("JSON")))
    }

    #[test]
    fn the_contract_is_kept_hlt_5_to_7() {
        let (status, health) = ask(Behaviour::default(), "GET", "/v1/health").expect("answered");
        assert_eq!((status, &health["contract"], &health["state"]), (200, &json!(1), &json!("ready")));
        assert_eq!(health["version"], "2.0.0");
        let (_, policy) = ask(Behaviour::default(), "GET", "/v1/policy").expect("answered");
        assert_eq!(policy["loaded"], true);
        let digest = policy["digest"].as_str().and_then(|digest| digest.strip_prefix("sha256:")).expect("a digest");
        assert!(digest.len() == 64 && digest.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let (status, sandbox) = ask(Behaviour::default(), "GET", "/v1/sandbox").expect("answered");
        assert_eq!((status, &sandbox["offered"]), (200, &json!(false)));
        assert_eq!(ask(Behaviour::default(), "POST", "/v1/sandbox/run").expect("answered").0, 404);
    }

    #[test]
    fn it_is_broken_as_told() {
        let told = Behaviour { policy: Policy::Hangs, ..Behaviour::default() };
        assert_eq!(ask(told, "GET", "/v1/policy"), None);
        let told = Behaviour { policy: Policy::NotLoaded, wrong_contract: true, ..Behaviour::default() };
        let (_, policy) = ask(told, "GET", "/v1/policy").expect("answered");
        assert_eq!(policy, json!({ "contract": 99, "loaded": false }));
    }
}
