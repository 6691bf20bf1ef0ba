/** The enclave's id as nitro-cli makes it: instance id, `-enc`, slot in hexadecimal. */
import { readFileSync } from "node:fs";

/** Present on EC2, where it holds the instance id. */
const ASSET_TAG = "/sys/devices/virtual/dmi/id/board_asset_tag";
const NO_INSTANCE = "i-0000000000000000";

export function enclaveId(slotUid: bigint, assetTag = readAssetTag()): string {
  const instance = /^i-[0-9a-f]+$/.test(assetTag) ? assetTag : NO_INSTANCE;
  return `${instance}-enc${slotUid.toString(16)}`;
}

function readAssetTag(): string {
  try {
    return readFileSync(ASSET_TAG, "utf8").trim();
  } catch {
    // ENOENT: a machine without DMI. EACCES: a container that hides it.
    return "";
  }
}
