/** reboot(2): the end of the machine. */
import { bind, check } from "./ffi.ts";

const libc = bind({
  sync: { arguments: [], return: "void" },
  reboot: { arguments: ["i32"], return: "i32" },
});

/** linux/reboot.h: LINUX_REBOOT_CMD_RESTART. */
const RB_AUTOBOOT = 0x0123_4567;

/** Restart the machine, which ends an enclave. Throws SystemError (EPERM outside one's own machine). */
export function restartMachine(): void {
  libc.sync();
  check(libc.reboot(RB_AUTOBOOT), "reboot");
}
