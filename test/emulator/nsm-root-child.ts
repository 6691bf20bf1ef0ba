/** Prints the certificate, hexadecimal, of the development root in the folder that it was given. */
import { openDevelopmentRoot } from "../../emulator/nsm/root.ts";
import { toHex } from "../../format/struct.ts";

const { certificate } = await openDevelopmentRoot(process.argv[2]);
console.log(toHex(certificate));
