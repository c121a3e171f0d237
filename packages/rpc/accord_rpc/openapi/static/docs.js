// Shows the reference, and signs in with e-mail and password. The token stays in the memory of this page; with SESSION_COOKIES
// there is none, because the browser sends the cookie.
"use strict";

const element = (id) => document.getElementById(id);
const show = (id) => ["sign-in", "second-step", "sign-out"].forEach((form) => { element(form).hidden = form !== id; });
const say = (text) => { element("message").textContent = text; };

let ui, token, secondStepToken;

function render(specification) {
  ui = SwaggerUIBundle({
    spec: specification,
    domNode: element("reference"),
    docExpansion: "list",
    defaultModelsExpandDepth: -1,
    displayRequestDuration: true,
    filter: true,
    tryItOutEnabled: true,
    validatorUrl: null,
    onComplete: authorize,
  });
}

// Swagger UI sends the token with the calls that accept a session.
function authorize() {
  if (token) ui.preauthorizeApiKey("session", token);
}

async function loadReference() {
  const response = await fetch("/openapi.json", { headers: token ? { authorization: `Bearer ${token}` } : {} });
  if (response.ok) render(await response.json());
  else say("Sign in to see the reference.");
}

async function call(method, path, message) {
  const headers = { "content-type": "application/json", ...(token && { authorization: `Bearer ${token}` }) };
  const response = await fetch(path, { method, headers, body: message && JSON.stringify(message) });
  const answer = await response.json();
  if (!response.ok) throw new Error(answer.message);
  return answer;
}

async function signedIn(answer, email) {
  token = answer.sessionToken;
  element("who").textContent = email;
  say("");
  show("sign-out");
  if (ui) authorize();
  else await loadReference();
}

function onSubmit(id, act) {
  element(id).addEventListener("submit", async (event) => {
    event.preventDefault();
    const values = Object.fromEntries(new FormData(event.target));
    try { await act(values); } catch (error) { say(error.message); }
    event.target.reset();
  });
}

onSubmit("sign-in", async ({ email, password }) => {
  const answer = await call("POST", "/v1/sessions", { email, password });
  secondStepToken = answer.secondStepToken;
  if (answer.session) return signedIn(answer, email);
  show("second-step");
  say("Enter the code that your authenticator app shows.");
});

onSubmit("second-step", async ({ code }) => {
  await signedIn(await call("POST", "/v1/sessions:completeSignIn", { secondStepToken, code }), "Signed in");
});

onSubmit("sign-out", async () => {
  try { await call("DELETE", "/v1/session"); } finally {
    if (token && ui) ui.authActions.logout(["session"]);
    token = undefined;
    say("");
    show("sign-in");
  }
});

// The session of the cookie, which this page cannot read. Without SESSION_COOKIES there is none, and the call would only fail.
async function cookieSession() {
  if (!("sessionCookies" in document.body.dataset)) return undefined;
  try { return await call("GET", "/v1/session"); } catch { return undefined; }
}

async function begin() {
  const answer = await cookieSession();
  if (answer) await signedIn(answer, answer.account.email);
  else await loadReference();
}

begin();
