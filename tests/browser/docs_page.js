// Opens /docs, signs in, creates a task with "Execute", and takes screenshots.
// node docs_page.js '{"chromium": "…", "url": "…", "email": "…", "password": "…", "folder": "…"}' prints what it saw as JSON.
"use strict";

const { chromium } = require("playwright-core");

const options = JSON.parse(process.argv[2]);
const OFFLINE = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
  "--disable-component-update", "--disable-sync"];

async function main() {
  const browser = await chromium.launch({ executablePath: options.chromium, args: OFFLINE });
  try {
    const page = await browser.newPage({ viewport: { width: 1200, height: 900 } });
    const problems = [];
    await watch(page, problems);
    await page.goto(`${options.url}/docs`);
    const beforeSignIn = options.signInFirst ? await messageOf(page) : await operationsOf(page);
    await page.screenshot({ path: `${options.folder}/page.png` });
    await signIn(page, options.password);
    await page.waitForSelector("#sign-out:not([hidden])");
    const operations = await operationsOf(page);
    const afterReload = options.signInFirst ? await signedInAfterReload(page) : "";
    const trial = options.signInFirst ? {} : await tryCall(page, problems);
    console.log(JSON.stringify({ problems, beforeSignIn, operations, afterReload, ...trial }));
  } finally {
    await browser.close();
  }
}

async function signedInAfterReload(page) {
  await page.reload();
  await page.waitForSelector("#sign-out:not([hidden])");
  await operationsOf(page);
  const who = await page.innerText("#who");
  await page.click("#sign-out button");
  await page.waitForSelector("#sign-in:not([hidden])");
  await page.reload();
  await messageOf(page);
  await page.waitForSelector("#sign-in:not([hidden])");
  return who;
}

async function tryCall(page, problems) {
  const response = await createTask(page);
  await page.screenshot({ path: `${options.folder}/call.png` });
  const problemsBefore = [...problems];
  await page.click("#sign-out button");
  await signIn(page, "wrong"); // the console reports its status 401
  return { problems: problemsBefore, response, refusal: await messageOf(page) };
}

async function watch(page, problems) {
  await page.exposeFunction("report", (problem) => problems.push(problem));
  await page.addInitScript(() => document.addEventListener(
    "securitypolicyviolation", (event) => window.report(`${event.violatedDirective}: ${event.blockedURI}`)));
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && problems.push(message.text()));
  page.on("pageerror", (error) => problems.push(String(error)));
  page.on("requestfailed", (request) => problems.push(`failed: ${request.url()}`));
  page.on("request", (request) => {
    const { origin, protocol } = new URL(request.url());
    if (protocol !== "data:" && origin !== new URL(options.url).origin) problems.push(`elsewhere: ${request.url()}`);
  });
}

async function operationsOf(page) {
  await page.waitForSelector(".opblock");
  return page.locator(".opblock").count();
}

async function messageOf(page) {
  await page.waitForSelector("#message:not(:empty)");
  return page.innerText("#message");
}

async function signIn(page, password) {
  await page.waitForSelector("#sign-in:not([hidden])");
  await page.fill("#sign-in [name=email]", options.email);
  await page.fill("#sign-in [name=password]", password);
  await page.click("#sign-in button");
}

async function createTask(page) {
  const operation = page.locator("#operations-TaskService-TaskService_CreateTask");
  await operation.locator(".opblock-summary").click();
  await operation.locator("button.execute").click();
  const response = operation.locator(".live-responses-table .response").first();
  await response.waitFor();
  await response.scrollIntoViewIfNeeded();
  return { status: (await response.locator(".response-col_status").innerText()).trim(), text: await response.innerText() };
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
