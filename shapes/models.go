package shapes

import (
	"embed"
	"fmt"
	"slices"
	"strings"
)

//go:embed models/*.json
var models embed.FS

// ModelNames lists the models whose configuration comes with the project: the two real ones,
// tiny ones with every parameter name of them, and wide, which has the real widths in 2 + 2 layers.
func ModelNames() []string {
	entries, _ := models.ReadDir("models") // an embedded folder cannot fail to be read
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), ".json"))
	}
	slices.Sort(names)
	return names
}

// ModelJSON is the config.json of a model that comes with the project.
func ModelJSON(name string) ([]byte, error) {
	data, err := models.ReadFile("models/" + name + ".json")
	if err != nil {
		return nil, fmt.Errorf("model %q is not known, want one of %s", name, strings.Join(ModelNames(), ", "))
	}
	return data, nil
}

// Model is the configuration of a model that comes with the project.
func Model(name string) (Config, error) {
	data, err := ModelJSON(name)
	if err != nil {
		return Config{}, err
	}
	return ParseConfig(data)
}
