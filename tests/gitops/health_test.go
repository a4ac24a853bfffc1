// Holds what deploy/argo-cd and deploy/flux say of health to the engines that read it: gopher-lua, as Argo CD has
// it, and cel-go, as Flux has it.
package gitops

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/cel-go/cel"
	lua "github.com/yuin/gopher-lua"
	"sigs.k8s.io/yaml"
)

const service = "FlyweightService"

// What stands in a resource, and what is to be said of it; nothing where its kind never has this.
type shown struct {
	name         string
	conditions   []any
	argo, flux   string // of a service
	argoN, fluxN string // of what a service names: a pool, a tier
}

var cases = []shown{
	{"nothing yet", nil, "Progressing", "wait", "Progressing", "wait"},
	{"ready", all(now("Ready", "True", "Serving")), "Healthy", "current", "Healthy", "current"},
	{"ready, though something is wrong",
		all(now("Ready", "True", "Serving"), now("Degraded", "True", "AutoscalingInactive")),
		"Healthy", "current", "Healthy", "current"},
	{"ready as it was before", all(before("Ready", "True", "Serving")), "Progressing", "wait", "Progressing", "wait"},
	{"bad as it was before",
		all(before("Ready", "False", "UnknownHost"), before("Degraded", "True", "UnknownHost")),
		"Progressing", "wait", "Progressing", "wait"},
	{"bad", all(now("Ready", "False", "UnknownHost"), now("Degraded", "True", "UnknownHost")),
		"Degraded", "failed", "Degraded", "failed"},
	{"rolling out", all(now("Ready", "False", "RollingOut"), now("Degraded", "False", "AsExpected")),
		"Progressing", "wait", "", ""},
	{"paused", all(now("Ready", "False", "Paused"), now("Degraded", "False", "AsExpected")), "Suspended", "wait", "", ""},
	{"no replicas", all(now("Ready", "False", "ScaledToZero")), "Suspended", "wait", "", ""},
	{"pending", all(now("Ready", "False", "Pending")), "", "", "Progressing", "wait"},
	{"named by no service", all(now("Ready", "False", "NotReferenced")), "", "", "Healthy", "current"},
}

func TestArgoCD(t *testing.T) {
	var patch struct{ Data map[string]string }
	read(t, "deploy/argo-cd/health.yaml", &patch)
	for _, kind := range []string{service, "FlyweightPool", "CacheTier"} {
		script := patch.Data["resource.customizations.health.flyweight.dev_"+kind]
		for _, one := range cases {
			wanted := one.argoN
			if kind == service {
				wanted = one.argo
			}
			if wanted == "" {
				continue
			}
			state := lua.NewState()
			state.SetGlobal("obj", table(state, one.object()))
			if err := state.DoString(script); err != nil {
				t.Fatal(err)
			}
			health, is := state.Get(-1).(*lua.LTable)
			if !is || health.RawGetString("status").String() != wanted || health.RawGetString("message") == lua.LNil {
				t.Errorf("%s, %s: %v, not %s", kind, one.name, health.RawGetString("status"), wanted)
			}
			state.Close()
		}
	}
}

func TestFlux(t *testing.T) {
	checks := expressions(t)
	if len(checks) != 3 {
		t.Fatalf("%d kinds", len(checks))
	}
	for kind, check := range checks {
		for _, one := range cases {
			wanted := one.fluxN
			if kind == service {
				wanted = one.flux
			}
			if wanted == "" {
				continue
			}
			// in the order in which Flux asks
			said := "wait"
			if holds(t, check.Failed, one.object()) {
				said = "failed"
			} else if holds(t, check.Current, one.object()) {
				said = "current"
			}
			if said != wanted {
				t.Errorf("%s, %s: %s, not %s", kind, one.name, said, wanted)
			}
		}
	}
}

func TestThePageShowsWhatTheFileHas(t *testing.T) {
	page, err := os.ReadFile("../../docs/how-to/gitops.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindSubmatch(page)
	var shown kustomization
	if err := yaml.Unmarshal(block[1], &shown); err != nil {
		t.Fatal(err)
	}
	for _, one := range shown.Spec.HealthCheckExprs {
		if one.Current != expressions(t)[one.Kind].Current {
			t.Errorf("%s: %s", one.Kind, one.Current)
		}
	}
}

type expression struct{ Kind, Current, Failed string }

type kustomization struct {
	Spec struct{ HealthCheckExprs []expression }
}

func expressions(t *testing.T) map[string]expression {
	var flux kustomization
	read(t, "deploy/flux/shop.yaml", &flux)
	found := map[string]expression{}
	for _, one := range flux.Spec.HealthCheckExprs {
		found[one.Kind] = one
	}
	return found
}

func holds(t *testing.T, text string, object map[string]any) bool {
	env, err := cel.NewEnv(cel.Variable("status", cel.DynType), cel.Variable("metadata", cel.DynType))
	if err != nil {
		t.Fatal(err)
	}
	ast, issues := env.Compile(text)
	if issues.Err() != nil {
		t.Fatal(issues.Err())
	}
	program, err := env.Program(ast)
	if err != nil {
		t.Fatal(err)
	}
	value, _, err := program.Eval(object)
	if err != nil {
		t.Fatal(err)
	}
	return value.Value() == true
}

func now(kind, status, reason string) any    { return condition(kind, status, reason, 2) }
func before(kind, status, reason string) any { return condition(kind, status, reason, 1) }
func all(conditions ...any) []any            { return conditions }

func condition(kind, status, reason string, generation int) any {
	return map[string]any{
		"type": kind, "status": status, "reason": reason, "message": "why", "observedGeneration": generation,
	}
}

func (one shown) object() map[string]any {
	status := map[string]any{}
	if one.conditions != nil {
		status["conditions"] = one.conditions
	}
	return map[string]any{"metadata": map[string]any{"generation": 2}, "status": status}
}

func table(state *lua.LState, value any) lua.LValue {
	switch value := value.(type) {
	case map[string]any:
		made := state.NewTable()
		for name, inner := range value {
			made.RawSetString(name, table(state, inner))
		}
		return made
	case []any:
		made := state.NewTable()
		for _, inner := range value {
			made.Append(table(state, inner))
		}
		return made
	case int:
		return lua.LNumber(value)
	case string:
		return lua.LString(value)
	}
	return lua.LNil
}

func read(t *testing.T, path string, into any) {
	text, err := os.ReadFile("../../" + path)
	if err != nil {
		t.Fatal(err)
	}
	if err := yaml.Unmarshal([]byte(strings.TrimSpace(string(text))), into); err != nil {
		t.Fatal(err)
	}
}
