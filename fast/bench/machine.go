package bench

import (
	"bufio"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
)

// thisMachine is what the system says of the machine. Features come from the caller.
func thisMachine(features string) Machine {
	return Machine{
		OS: runtime.GOOS, Arch: runtime.GOARCH, Features: features, Cores: runtime.NumCPU(),
		CPU: cpuName(), Memory: procBytes("/proc/meminfo", "MemTotal"),
	}
}

// thisProgram is what the build recorded.
func thisProgram() Program {
	p := Program{Version: "(devel)", Go: runtime.Version()}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return p
	}
	if info.Main.Version != "" {
		p.Version = info.Main.Version
	}
	for _, s := range info.Settings {
		switch s.Key {
		case "vcs.revision":
			p.Revision = s.Value
		case "vcs.modified":
			p.Modified = s.Value == "true"
		}
	}
	return p
}

// PeakMemory is the most memory that the process has held at a time, in bytes; 0 where the system does not say.
func PeakMemory() int64 { return procBytes("/proc/self/status", "VmHWM") }

// AvailableMemory is how much memory a process can have before others go without, in bytes; 0 where the system does not say.
func AvailableMemory() int64 { return procBytes("/proc/meminfo", "MemAvailable") }

// procBytes is the value of a line "key: N kB".
func procBytes(path, key string) int64 {
	value, _ := procLine(path, key)
	n, err := strconv.ParseInt(strings.TrimSuffix(value, " kB"), 10, 64)
	if err != nil || n < 0 || n > 1<<50 {
		return 0
	}
	return n << 10
}

// cpuName is the processor's name, with family and model, which tell apart what names do not ("AMD EPYC").
func cpuName() string {
	name, ok := procLine("/proc/cpuinfo", "model name")
	if !ok {
		return runtime.GOARCH
	}
	family, _ := procLine("/proc/cpuinfo", "cpu family")
	model, _ := procLine("/proc/cpuinfo", "model")
	if family != "" && model != "" {
		name += " (family " + family + ", model " + model + ")"
	}
	return name
}

// procLine finds the first line of a key in a file of /proc.
func procLine(path, key string) (string, bool) {
	f, err := os.Open(path)
	if err != nil {
		return "", false
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		if k, v, ok := strings.Cut(s.Text(), ":"); ok && strings.TrimSpace(k) == key {
			return strings.TrimSpace(v), true
		}
	}
	return "", false
}
