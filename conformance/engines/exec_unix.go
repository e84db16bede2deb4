//go:build unix

package engines

import (
	"os/exec"
	"syscall"
)

// inGroup gives a command a process group of its own, all of which is ended when the command is.
func inGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
}
