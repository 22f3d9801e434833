// A person at browser_page.html in headless Chromium, driven over standard input and output (operations.mjs): they fill in
// forms, press buttons and look. The page has an origin of its own, so that every request to the homeserver crosses origins.
import { readFile } from "node:fs/promises";
import http from "node:http";

import { serve } from "./operations.mjs";

const { build } = await import("esbuild");
const { chromium } = await import("playwright-core");

const WASM = "pkg/matrix_sdk_crypto_wasm_bg.wasm";
const refusals = [];
let browser;
let page;
let files;

const operations = {
    async open({ executable }) {
        const here = new URL("./", import.meta.url);
        const made = await build({
            entryPoints: [new URL("browser_page.mjs", here).pathname],
            bundle: true,
            format: "esm",
            target: "chrome120",
            define: { global: "globalThis" },
            write: false,
            logLevel: "error",
        });
        const contents = {
            "/": ["text/html", await readFile(new URL("browser_page.html", here))],
            "/browser_page.js": ["text/javascript", made.outputFiles[0].contents],
            // The library looks for it beside the script it became part of.
            [`/${WASM}`]: ["application/wasm", await readFile(new URL(`node_modules/@matrix-org/matrix-sdk-crypto-wasm/${WASM}`, here))],
        };
        files = http.createServer((request, response) => {
            const [type, body] = contents[request.url] ?? [];
            response.writeHead(body ? 200 : 404, { "Content-Type": type ?? "text/plain" }).end(body ?? "");
        });
        await new Promise((resolve) => files.listen(0, "127.0.0.1", resolve));
        // Chromium's own sandbox wants what root in a container has not; the page is ours.
        browser = await chromium.launch({ executablePath: executable, args: ["--no-sandbox"] });
        page = await browser.newPage({ viewport: { width: 800, height: 900 } });
        page.setDefaultTimeout(60_000);
        page.on("console", (message) => message.type() === "error" && console.error(message.text()));
        page.on("pageerror", (error) => refusals.push(String(error)));
        page.on("requestfailed", (request) => {
            const why = request.failure()?.errorText;
            // A long poll ends with its page.
            if (why !== "net::ERR_ABORTED") refusals.push(`${why} ${request.method()} ${request.url()}`);
        });
        page.on("response", (answer) => {
            // With 503 a loaded server asks to be asked again, and is.
            if (answer.status() >= 400 && answer.status() !== 503) refusals.push(`${answer.status()} ${answer.request().method()} ${new URL(answer.url()).pathname}`);
        });
        await page.goto(`http://127.0.0.1:${files.address().port}/`);
        return browser.version();
    },

    async login({ baseUrl, username, password }) {
        await submit("#login", { baseUrl, username, password });
        await page.locator("main").waitFor();
    },

    // The id of the room, which the page goes on to show.
    async createRoom({ name, invite, encrypted }) {
        const before = await page.evaluate(() => localStorage.getItem("room"));
        await page.setChecked("#create [name=encrypted]", encrypted);
        await submit("#create", { name, invite });
        const made = (before) => localStorage.getItem("room") !== before && localStorage.getItem("room");
        return (await page.waitForFunction(made, before)).jsonValue();
    },

    async say({ text }) {
        await submit("#say", { text });
    },

    async sendImage({ path }) {
        await page.locator("#image").setInputFiles(path);
    },

    async reload() {
        await page.reload();
        await page.locator("main").waitFor();
    },

    // What the page shows. The sizes of images are those of the files, in pixels; [0, 0] before they are there.
    async look() {
        const seen = await page.evaluate(() => ({
            name: document.querySelector("h1").textContent,
            members: document.querySelector("#members").textContent.split(", "),
            complaints: document.querySelector("[role=alert]").textContent,
            items: [...document.querySelectorAll("li")].map((item) => ({
                event_id: item.dataset.id,
                state: item.className,
                text: item.lastChild.textContent || item.childNodes[1].textContent,
                images: [...item.querySelectorAll("img")].map((one) => (one.complete ? [one.naturalWidth, one.naturalHeight] : [0, 0])),
            })),
        }));
        return { ...seen, refusals };
    },

    async screenshot({ path }) {
        await page.screenshot({ path, fullPage: true });
    },
};

async function submit(form, values) {
    for (const [name, value] of Object.entries(values)) await page.fill(`${form} [name=${name}]`, value);
    await page.click(`${form} button`);
}

await serve(operations);
await browser?.close();
process.exit(0);
