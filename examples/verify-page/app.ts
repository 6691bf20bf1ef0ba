/** The enclave's part: a fetch handler that knows nothing of attestation. What it sees came in the clear or encrypted. */
export default {
  async fetch(request: Request): Promise<Response> {
    const encrypted = new URL(request.url).protocol === "https:";
    return Response.json({ encrypted, length: (await request.text()).length });
  },
};
