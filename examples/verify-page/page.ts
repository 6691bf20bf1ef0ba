/** Verify an enclave, show every step, and then send it what nobody between may read. */
import { AttestationError, CloisterError, createClient, readPolicy, type Step } from "cloister/client";

/** From this page's own origin, never from the enclave's: whoever serves it decides what is accepted. */
interface Accept {
  readonly enclave: string;
  /** What `cloister build --json` printed, or a policy. */
  readonly policy: unknown;
  /** For enclaves in the emulator: the fingerprint of their development root. */
  readonly roots?: readonly string[];
}

function element(id: string): HTMLElement {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`index.html has no #${id}`);
  return found;
}

/** As text, never as HTML: got and expected are the other side's words. */
function show(steps: readonly Step[]): void {
  const items = steps.map(({ name, status, checked, got, expected }) => {
    const item = document.createElement("li");
    item.className = status;
    item.dataset.step = name;
    const detail = document.createElement("code");
    detail.textContent = expected === undefined ? got : `got ${got}, expected ${expected}`;
    item.append(checked, detail);
    return item;
  });
  element("steps").replaceChildren(...items);
}

function conclude(verdict: "verified" | "refused", text: string): void {
  const heading = element("verdict");
  heading.textContent = text;
  // Milliseconds since the page began to load.
  heading.dataset.ms = performance.now().toFixed(0);
  heading.dataset.verdict = verdict;
}

async function main(): Promise<void> {
  const accept = (await (await fetch("accept.json")).json()) as Accept;
  element("enclave").textContent = accept.enclave;
  const { roots } = accept;
  const policy = readPolicy(accept.policy);
  const client = createClient(accept.enclave, { policy, ...(roots === undefined ? {} : { roots }) });
  try {
    const { steps } = await client.attest();
    show(steps);
    conclude("verified", "Verified: it is the release that this page accepts.");
  } catch (error) {
    if (!(error instanceof CloisterError)) throw error;
    if (error instanceof AttestationError) show(error.steps);
    conclude("refused", `Refused: ${error.message} (${error.code})`);
    return;
  }
  const form = element("form");
  form.hidden = false;
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const body = (element("secret") as HTMLInputElement).value;
    try {
      const response = await client.fetch("/", { method: "POST", body });
      element("answer").textContent = await response.text();
    } catch (error) {
      element("answer").textContent = String(error);
    }
  });
}

main().catch((error) => conclude("refused", `Refused: ${error}`));
