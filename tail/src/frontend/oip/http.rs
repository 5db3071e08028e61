//! The paths of the protocol over HTTP.

use std::{io, sync::Arc};

use narrows_http::{BodyFault, Method, Reader, Request, Response, Site, decoded, respond};
use narrows_wire::text::Quoted;
use serde_json::{Value, json};
use tokio::net::tcp::OwnedWriteHalf;

use super::{
    ANONYMOUS, Oip,
    infer::{Context, Fault, infer},
    models::{Model, find, usable, versions},
    tensors::{self, InferRequest, LONGEST_JSON, Malformed},
};
use crate::{
    devices::Rights,
    engine::Client,
    frontend::{
        admission::Permit,
        budget::{Exhausted, Lease},
        log::Kind,
        metrics::Outcome,
        panic::caught,
    },
};

/// Most bytes of a request's body: 30 images of 480×360 pixels, uncompressed.
const LONGEST_BODY: usize = 16 << 20;
/// Extensions of the protocol that are understood.
const EXTENSIONS: [&str; 3] = ["binary_tensor_data", "classification", "model_repository"];
/// The header that tells the length of a body's JSON.
const JSON_LENGTH: &str = "inference-header-content-length";

/// Who asks, and what it may do.
struct Caller {
    name: Arc<str>,
    rights: Arc<Rights>,
}

/// What stands for a request until its answer is written: its place among those that a drain waits for, and its memory.
type Held = (Option<Permit>, Option<Lease>);

/// A path of the protocol.
enum Target<'a> {
    Server,
    Live,
    Ready,
    Index,
    Model { name: &'a str, version: Option<&'a str>, what: What },
}

/// What is asked of a model.
#[derive(Clone, Copy)]
enum What {
    Metadata,
    Ready,
    Infer,
}

impl<'a> Target<'a> {
    fn of(segments: &[&'a str]) -> Option<Target<'a>> {
        let what = |rest: &[&str]| match rest {
            [] => Some(What::Metadata),
            ["ready"] => Some(What::Ready),
            ["infer"] => Some(What::Infer),
            _ => None,
        };
        match segments {
            ["v2"] => Some(Target::Server),
            ["v2", "health", "live"] => Some(Target::Live),
            ["v2", "health", "ready"] => Some(Target::Ready),
            ["v2", "repository", "index"] => Some(Target::Index),
            ["v2", "models", name, "versions", version, rest @ ..] => {
                Some(Target::Model { name, version: Some(version), what: what(rest)? })
            }
            ["v2", "models", name, rest @ ..] => {
                Some(Target::Model { name, version: None, what: what(rest)? })
            }
            _ => None,
        }
    }

    fn method(&self) -> Method {
        match self {
            Target::Index | Target::Model { what: What::Infer, .. } => Method::Post,
            _ => Method::Get,
        }
    }
}

impl Site for Oip {
    const TAKES_BODIES: bool = true;

    async fn answer(
        &self,
        request: &Request,
        reader: &mut Reader,
        output: &mut OwnedWriteHalf,
    ) -> io::Result<bool> {
        // A fault on one request ends none but it.
        let mut held = Held::default();
        let response = match caught(self.respond_to(request, reader, output, &mut held)).await {
            Ok(Some(response)) => response,
            Ok(None) => return Ok(false),
            Err(panic) => {
                if self.shared.writes(Kind::Panicked) {
                    tracing::error!(panic = %Quoted(&panic), path = %Quoted(&request.path), "a request's task panicked");
                }
                error("500 Internal Server Error", "the server failed on this request; its log has more")
            }
        };
        respond(output, &response, request.is_head, reader.keeps_open(request)).await?;
        drop(held);
        Ok(true)
    }
}

impl Oip {
    /// The answer to a request, and what is `held` until it is written; `None` if the client has gone.
    async fn respond_to(
        &self,
        request: &Request,
        reader: &mut Reader,
        output: &mut OwnedWriteHalf,
        held: &mut Held,
    ) -> Option<Response> {
        let segments: Option<Vec<String>> = request.path.trim_matches('/').split('/').map(decoded).collect();
        let segments = segments.unwrap_or_default();
        let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
        let Some(target) = Target::of(&segments) else {
            let text = format!("there is no {}; the paths of models begin with /v2/models", request.path);
            return Some(error("404 Not Found", &text));
        };
        let method = target.method();
        if request.method != method && !(request.is_head && method == Method::Get) {
            let allowed = if method == Method::Post { "POST" } else { "GET, HEAD" };
            let refusal = error("405 Method Not Allowed", &format!("{} takes {allowed}", request.path));
            return Some(Response { headers: format!("allow: {allowed}\r\n"), ..refusal });
        }
        match target {
            // What a load balancer asks needs no rights.
            Target::Live => return Some(json_response("200 OK", &json!({ "live": true }))),
            Target::Ready => {
                let ready = !self.is_draining();
                let status = if ready { "200 OK" } else { "503 Service Unavailable" };
                return Some(json_response(status, &json!({ "ready": ready })));
            }
            _ => {}
        }
        let caller = match self.caller(request) {
            Ok(caller) => caller,
            Err(refusal) => return Some(refusal),
        };
        let bundles = self.shared.engine().bundles();
        let models = usable(&bundles, &caller.rights.scope);
        let response = match target {
            Target::Server => json_response(
                "200 OK",
                &json!({
                    "name": "narrows-tail",
                    "version": env!("CARGO_PKG_VERSION"),
                    "extensions": EXTENSIONS,
                }),
            ),
            Target::Index => {
                // What it may filter by is not needed with few models.
                match self.body(request, reader, output, &caller).await? {
                    Ok(_) => json_response("200 OK", &models.iter().map(index).collect()),
                    Err(refusal) => refusal,
                }
            }
            Target::Model { name, version, what } => match find(&models, name, version) {
                Err(reason) => error("404 Not Found", &reason),
                Ok(model) => match what {
                    What::Metadata => {
                        let versions: Vec<String> =
                            versions(&models, name).into_iter().map(Model::version).collect();
                        json_response("200 OK", &model.metadata(&versions))
                    }
                    What::Ready => match self.is_draining() {
                        true => error("503 Service Unavailable", "the server is shutting down"),
                        false => json_response(
                            "200 OK",
                            &json!({ "name": name, "ready": true, "loaded": model.is_loaded() }),
                        ),
                    },
                    What::Infer => {
                        let model = (name, version);
                        return self.infer(request, (reader, output), &caller, model, held).await;
                    }
                },
            },
            Target::Live | Target::Ready => return None,
        };
        Some(response)
    }

    /// Answers a request of inference; `None` if the client has gone.
    async fn infer(
        &self,
        request: &Request,
        (reader, output): (&mut Reader, &mut OwnedWriteHalf),
        caller: &Caller,
        named: (&str, Option<&str>),
        (place, memory): &mut Held,
    ) -> Option<Response> {
        *place = Some(self.requests.acquire());
        if self.is_draining() {
            return Some(error("503 Service Unavailable", "the server is shutting down"));
        }
        let (body, mut lease) = match self.body(request, reader, output, caller).await? {
            Ok(body) => body,
            Err(refusal) => return Some(refusal),
        };
        // A body may take minutes, in which rights change and versions leave.
        let (caller, model) = match self.model(request, named) {
            Ok(found) => found,
            Err(refusal) => return Some(refusal),
        };
        let metrics = self.shared.metrics().device(&caller.name);
        let client = Client { name: Arc::clone(&caller.name), terms: caller.rights.terms };
        let context = Context {
            engine: self.shared.engine(),
            client,
            metrics: &metrics,
            largest: self.largest,
            bytes: body.len(),
        };
        // Megabytes of JSON take as long as a large answer.
        let parsed = tokio::task::block_in_place(|| {
            json_length(request).and_then(|length| InferRequest::parse(&body, length))
        });
        drop(body);
        let answered = async {
            let mut parsed = parsed?;
            let id = parsed.id.take();
            Ok((id, infer(&context, &model, parsed, &mut lease).await?))
        };
        let answered: Result<_, Fault> = tokio::select! {
            answered = answered => answered,
            // Dropping the other future gives its work up.
            () = reader.closed() => return None,
        };
        let (id, outputs) = match answered {
            Ok(answered) => answered,
            Err(Fault::NoMemory(exhausted)) => return Some(self.no_memory(exhausted)),
            Err(fault) => {
                let (status, retry) = fault.status();
                if let Some(code) = fault.code() {
                    metrics.refused(Outcome::NotAccepted, code);
                }
                tracing::debug!(client = %caller.name, model = model.name, reason = %fault, "not answered");
                let refusal = error(status, &fault.to_string());
                let headers = retry.map(|seconds| format!("retry-after: {seconds}\r\n")).unwrap_or_default();
                return Some(Response { headers, ..refusal });
            }
        };
        let version = model.version();
        // A large answer in JSON takes tens of milliseconds, and Tokio moves the other tasks of this thread meanwhile.
        let (body, json) =
            tokio::task::block_in_place(|| tensors::answer((&model.name, &version), id.as_deref(), &outputs));
        if let Err(exhausted) = lease.resize(body.len()) {
            return Some(self.no_memory(exhausted));
        }
        *memory = Some(lease);
        metrics.sent(body.len());
        let (kind, headers) = match json {
            None => ("application/json", String::new()),
            Some(length) => {
                ("application/octet-stream", format!("inference-header-content-length: {length}\r\n"))
            }
        };
        Some(Response { status: "200 OK", kind, headers, body })
    }

    /// Reads the body of a request, for whose memory the lease stands. `None` if the client has gone.
    async fn body(
        &self,
        request: &Request,
        reader: &mut Reader,
        output: &mut OwnedWriteHalf,
        caller: &Caller,
    ) -> Option<Result<(Vec<u8>, Lease), Response>> {
        if request.header("content-encoding").is_some_and(|coding| coding != "identity") {
            return Some(Err(error(
                "415 Unsupported Media Type",
                "bodies are taken without content-encoding",
            )));
        }
        let length = usize::try_from(request.length).unwrap_or(usize::MAX);
        if length > LONGEST_BODY {
            let text = format!("a body of {length} bytes; at most {LONGEST_BODY}");
            return Some(Err(error("413 Content Too Large", &text)));
        }
        let mut lease = self.shared.budget().lease(Arc::clone(&caller.name));
        // The values of a JSON take more memory than its text.
        let json = json_length(request).ok().flatten().unwrap_or(length).min(LONGEST_JSON);
        if let Err(exhausted) = lease.resize(length + 8 * json) {
            return Some(Err(self.no_memory(exhausted)));
        }
        match reader.body(request, output).await {
            Ok(body) => Some(Ok((body, lease))),
            Err(BodyFault::Slow) => {
                Some(Err(error("408 Request Timeout", "the body did not arrive in time")))
            }
            Err(_) => None,
        }
    }

    /// The refusal of a request or answer for which the budget holds no memory.
    fn no_memory(&self, exhausted: Exhausted) -> Response {
        self.shared.metrics().no_memory.add(1);
        let refusal = error("503 Service Unavailable", &exhausted.to_string());
        Response { headers: "retry-after: 1\r\n".to_owned(), ..refusal }
    }

    /// Who asks, and the model of a name and a version, if one is given, which it may use.
    fn model(
        &self,
        request: &Request,
        (name, version): (&str, Option<&str>),
    ) -> Result<(Caller, Model), Response> {
        let caller = self.caller(request)?;
        let models = usable(&self.shared.engine().bundles(), &caller.rights.scope);
        let model = find(&models, name, version).map_err(|reason| error("404 Not Found", &reason))?;
        Ok((caller, model))
    }

    /// Who asks, by the token.
    fn caller(&self, request: &Request) -> Result<Caller, Response> {
        let unauthorized = |text: &str| {
            let refusal = error("401 Unauthorized", text);
            Err(Response { headers: "www-authenticate: Bearer\r\n".to_owned(), ..refusal })
        };
        let name: Arc<str> = match request.header("authorization") {
            Some(given) => {
                let token = given.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
                let Some(name) = token.and_then(|(_, token)| self.shared.name_of(token.trim())) else {
                    return unauthorized("the token is none of a device's token_sha256");
                };
                name
            }
            None if self.anonymous => ANONYMOUS.into(),
            None => {
                return unauthorized(
                    "give Authorization: Bearer and a token, or start the server with --oip-anonymous",
                );
            }
        };
        match self.shared.rights(&name) {
            Some(rights) => Ok(Caller { name, rights }),
            None => Err(error("403 Forbidden", &format!("the server gives {name} no rights"))),
        }
    }
}

/// The entry of a model in the repository's index.
fn index(model: &Model) -> Value {
    let mut entry = json!({ "name": model.name, "version": model.version() });
    let (state, reason) = match (&model.served.fault, model.is_loaded(), model.served.is_leaving) {
        (Some(fault), false, _) => ("UNAVAILABLE", fault.as_str()),
        (_, false, _) => ("READY", "is loaded when it is asked for"),
        (_, true, true) => ("READY", "is served as long as something uses it"),
        (_, true, false) => ("READY", ""),
    };
    entry["state"] = state.into();
    entry["reason"] = reason.into();
    entry
}

fn json_length(request: &Request) -> Result<Option<usize>, Malformed> {
    let Some(text) = request.header(JSON_LENGTH) else { return Ok(None) };
    let length = text.trim().parse().map(Some);
    length.map_err(|_| Malformed(format!("Inference-Header-Content-Length: {text:?} is no number of bytes")))
}

fn error(status: &'static str, text: &str) -> Response {
    json_response(status, &json!({ "error": text }))
}

fn json_response(status: &'static str, body: &Value) -> Response {
    let body = serde_json::to_vec(body).unwrap_or_default();
    Response { status, kind: "application/json", headers: String::new(), body }
}
