package apikeyd

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	apikeyv1 "example.com/apikeyd/clients/go/apikey/v1"
)

const localKey = "audit_v1_ssssssssssssssssssssss"

// testClock passes only when a test says so.
type testClock struct {
	wall time.Time
	mono time.Duration
	// each look at the wall clock calls it.
	looked func()
}

func (c *testClock) now() time.Time {
	if c.looked != nil {
		c.looked()
	}
	return c.wall
}
func (c *testClock) monotonic() time.Duration { return c.mono }
func (c *testClock) advance(d time.Duration)  { c.wall, c.mono = c.wall.Add(d), c.mono+d }

// scene is a guard's keys with the answers of a server.
type scene struct {
	*localKeys
	clock    *testClock
	warnings int
}

func newScene() *scene {
	s := &scene{clock: &testClock{wall: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), mono: time.Second}}
	s.localKeys = newLocalKeys(3, s.clock, func(string) { s.warnings++ })
	return s
}

func (s *scene) answer() *apikeyv1.SyncKeysResponse {
	return &apikeyv1.SyncKeysResponse{
		Epoch: "e", Revision: 5, GrantId: "g", Lease: durationpb.New(time.Second),
		ServerTime: timestamppb.New(s.clock.wall), LockedAddressesComplete: true,
	}
}

func (s *scene) sync(change func(*apikeyv1.SyncKeysResponse)) {
	request := s.request(false)
	answer := s.answer()
	if change != nil {
		change(answer)
	}
	s.apply(request, answer, s.clock.wall, s.clock.mono)
}

func (s *scene) fill(key, keyID string, change func(*apikeyv1.KeyFacts)) {
	facts := &apikeyv1.KeyFacts{Epoch: "e", Scopes: []string{"traces:*"}, SecretSlot: apikeyv1.SecretSlot_SECRET_SLOT_CURRENT, Revision: 5}
	if change != nil {
		change(facts)
	}
	s.keep(key, &apikeyv1.ValidateKeyResponse{
		Decision: apikeyv1.Decision_DECISION_VALID, Valid: true, KeyId: keyID, OwnerId: "o", Facts: facts,
	}, s.generation)
}

func (s *scene) ask(scope, ip string) string {
	verdict, decided := s.decide(Question{Key: localKey, Scope: scope, ClientIP: ip})
	if !decided {
		return "ask"
	}
	return string(verdict.Decision)
}

func primed() *scene {
	s := newScene()
	s.sync(nil)
	s.fill(localKey, "k", nil)
	return s
}

func same(t *testing.T, got, want any) {
	t.Helper()
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestLeaseEndsByEitherClockAndByOneThatIsSetBack(t *testing.T) {
	s := newScene()
	s.fill(localKey, "k", nil)
	same(t, s.ask("traces:read", ""), "ask")
	for name, lapse := range map[string]func(*testClock){
		"monotonic":       func(c *testClock) { c.mono += time.Second },
		"wall":            func(c *testClock) { c.wall = c.wall.Add(time.Second) },
		"wall, set back":  func(c *testClock) { c.wall = c.wall.Add(-1) },
		"both":            func(c *testClock) { c.advance(time.Second) },
		"both, then back": func(c *testClock) { c.advance(time.Second); c.wall = c.wall.Add(-time.Second) },
	} {
		s := primed()
		s.clock.advance(0)
		same(t, s.ask("traces:read", ""), Valid)
		lapse(s.clock)
		if got := s.ask("traces:read", ""); got != "ask" {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func TestLeaseRunsFromTheStartOfItsCall(t *testing.T) {
	s := newScene()
	request, start, mono := s.request(false), s.clock.wall, s.clock.mono
	s.clock.advance(400 * time.Millisecond)
	s.apply(request, s.answer(), start, mono)
	s.fill(localKey, "k", nil)
	s.clock.advance(599 * time.Millisecond)
	same(t, s.ask("traces:read", ""), Valid)
	s.clock.advance(time.Millisecond)
	same(t, s.ask("traces:read", ""), "ask")
}

func TestNoLeaseWhereClocksAreFiveSecondsApart(t *testing.T) {
	for _, off := range []time.Duration{-5 * time.Second, 5 * time.Second} {
		s := newScene()
		for range 2 {
			s.sync(func(a *apikeyv1.SyncKeysResponse) { a.ServerTime = timestamppb.New(s.clock.wall.Add(off)) })
		}
		s.fill(localKey, "k", nil)
		same(t, s.ask("traces:read", ""), "ask")
		same(t, s.warnings, 1)
	}
}

func TestDecisionIsTakenBackWhenTheLeaseEndedMeanwhile(t *testing.T) {
	s := primed()
	looks := 0
	s.clock.looked = func() {
		if looks++; looks == 2 {
			s.clock.wall = s.clock.wall.Add(time.Second)
		}
	}
	same(t, s.ask("traces:read", ""), "ask")
	s.clock.looked = nil
	same(t, len(s.request(false).Uses), 0)
}

func TestFactsGoWithChangesResetsAndEpochs(t *testing.T) {
	s := primed()
	change := func(keyID string) func(*apikeyv1.SyncKeysResponse) {
		return func(a *apikeyv1.SyncKeysResponse) {
			a.Changes = []*apikeyv1.SyncedChange{{Revision: 6, KeyId: keyID}}
		}
	}
	s.sync(change("another"))
	same(t, s.ask("traces:read", ""), Valid)
	s.sync(change("k"))
	same(t, s.ask("traces:read", ""), "ask")
	s.fill(localKey, "k", nil)
	s.sync(func(a *apikeyv1.SyncKeysResponse) { a.Reset_ = true })
	same(t, s.ask("traces:read", ""), "ask")
	s.fill(localKey, "k", nil)
	s.sync(func(a *apikeyv1.SyncKeysResponse) { a.Epoch, a.Revision = "f", 2 })
	same(t, s.ask("traces:read", ""), "ask")
	same(t, s.cursor, 2)
	s.fill(localKey, "k", nil)
	same(t, s.ask("traces:read", ""), "ask")
}

func TestFactsAskedForBeforeASyncAreNotKept(t *testing.T) {
	s := newScene()
	s.sync(nil)
	_, sent, _ := s.moment()
	s.sync(nil)
	s.keep(localKey, &apikeyv1.ValidateKeyResponse{Valid: true, KeyId: "k", Facts: &apikeyv1.KeyFacts{Epoch: "e", Scopes: []string{"*"}}}, sent)
	same(t, s.ask("traces:read", ""), "ask")
}

func TestCursorNeverMovesBackWithinAnEpoch(t *testing.T) {
	s := newScene()
	s.sync(func(a *apikeyv1.SyncKeysResponse) { a.Revision = 9 })
	s.sync(func(a *apikeyv1.SyncKeysResponse) { a.Revision = 7 })
	same(t, s.request(false).Revision, 9)
}

func TestLeastRecentlyUsedSecretMakesRoom(t *testing.T) {
	s := newScene()
	s.sync(nil)
	for _, n := range []string{"2", "1", "3"} {
		s.fill(localKey+n, "k"+n, nil)
	}
	ask := func(n string) bool {
		_, decided := s.decide(Question{Key: Secret(localKey + n)})
		return decided
	}
	ask("2")
	s.fill(localKey+"4", "k4", nil)
	same(t, []bool{ask("1"), ask("2"), ask("3"), ask("4")}, []bool{false, true, true, true})
	same(t, len(s.byKey), 3)
}

func TestRulesOfTheServerInTheirOrder(t *testing.T) {
	s := primed()
	s.fill(localKey, "k", func(f *apikeyv1.KeyFacts) { f.IpAllowlist = []string{"10.1.2.3/8", "2001:db8::7/32"} })
	for _, one := range []struct{ scope, ip, want string }{
		{"traces:read", "10.9.9.9", "VALID"},
		{"traces:read", "2001:db8::1", "VALID"},
		{"traces:read", "11.0.0.1", "IP_NOT_ALLOWED"},
		{"traces:read", "", "IP_NOT_ALLOWED"},
		{"metrics:read", "11.0.0.1", "IP_NOT_ALLOWED"},
		{"metrics:read", "10.9.9.9", "INSUFFICIENT_SCOPE"},
		{"traces:read:more", "10.9.9.9", "INSUFFICIENT_SCOPE"},
		{"", "10.9.9.9", "VALID"},
		{"traces:read", "::ffff:a09:909", "VALID"},
		{"traces:read", "no address", "ask"},
		{"traces:read", "fe80::1%eth0", "ask"},
		{"tra*", "10.9.9.9", "ask"},
	} {
		same(t, s.ask(one.scope, one.ip), one.want)
	}
	s.fill(localKey, "k", func(f *apikeyv1.KeyFacts) { f.Scopes = []string{"*"} })
	same(t, s.ask("apikeys:admin", ""), InsufficientScope)
	s.fill(localKey, "k", func(f *apikeyv1.KeyFacts) { f.Expired = true })
	same(t, s.ask("traces:read", ""), Expired)
	s.fill(localKey, "k", func(f *apikeyv1.KeyFacts) {
		f.ExpireTime = timestamppb.New(s.clock.wall.Add(100 * time.Millisecond))
	})
	same(t, s.ask("traces:read", ""), Valid)
	s.clock.advance(100 * time.Millisecond)
	same(t, s.ask("traces:read", ""), Expired)
	s.fill(localKey, "k", func(f *apikeyv1.KeyFacts) {
		f.SecretSlot = apikeyv1.SecretSlot_SECRET_SLOT_PREVIOUS
		f.PreviousSecretExpireTime = timestamppb.New(s.clock.wall.Add(100 * time.Millisecond))
	})
	same(t, s.ask("traces:read", ""), Valid)
	s.clock.advance(100 * time.Millisecond)
	same(t, s.ask("traces:read", ""), Rotated)
}

// TestLocalVectors runs the files of the form of clients/conformance/local.json that test/clients/go.test.ts names.
func TestLocalVectors(t *testing.T) {
	paths := os.Getenv("APIKEYD_LOCAL_VECTORS")
	if paths == "" {
		t.Skip("test/clients/go.test.ts runs this")
	}
	for _, path := range strings.Split(paths, ",") {
		var file struct {
			ServerTime time.Time
			Keys       []struct {
				Name            string
				LockedAddresses []string
				Facts           json.RawMessage
				Questions       []struct {
					Scope, ClientIP, Decision string
					AfterMs                   int64
				}
			}
		}
		content, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(content, &file)
		}
		if err != nil {
			t.Fatal(err)
		}
		for _, key := range file.Keys {
			facts := &apikeyv1.KeyFacts{}
			if err := protojson.Unmarshal(key.Facts, facts); err != nil {
				t.Fatal(key.Name, err)
			}
			for _, question := range key.Questions {
				s := newScene()
				s.clock.wall = file.ServerTime
				s.sync(func(a *apikeyv1.SyncKeysResponse) {
					a.Epoch, a.Lease, a.LockedAddresses = facts.Epoch, durationpb.New(time.Minute), key.LockedAddresses
				})
				s.keep(localKey, &apikeyv1.ValidateKeyResponse{
					Decision: apikeyv1.Decision_DECISION_VALID, Valid: true, KeyId: "k", Facts: facts,
				}, s.generation)
				s.clock.advance(time.Duration(question.AfterMs) * time.Millisecond)
				got := s.ask(question.Scope, question.ClientIP)
				if got == "ask" {
					got = "ASK"
				}
				if got != question.Decision {
					t.Errorf("%s: %s %+v: %s", key.Name, key.Facts, question, got)
				}
			}
		}
	}
}

func TestAddressesThatMayBeLockedAreLeftToTheServer(t *testing.T) {
	s := primed()
	s.sync(func(a *apikeyv1.SyncKeysResponse) { a.LockedAddresses = []string{"10.1.2.3", "2001:db8:0:1::/64"} })
	for ip, want := range map[string]string{
		"10.1.2.3": "ask", "10.1.2.4": "VALID", "": "VALID", "2001:db8:0:1:ffff::7": "ask", "2001:0db8:0000:0001::9": "ask",
		"2001:db8:0:2::9": "VALID", "::ffff:10.1.2.3": "ask",
	} {
		if got := s.ask("traces:read", ip); got != want {
			t.Errorf("%q: %s", ip, got)
		}
	}
	s.sync(func(a *apikeyv1.SyncKeysResponse) { a.LockedAddressesComplete = false })
	same(t, s.ask("traces:read", "10.4.4.4"), "ask")
	same(t, s.ask("traces:read", ""), Valid)
}

func usesOf(request *apikeyv1.SyncKeysRequest) (uses []string) {
	for _, use := range request.Uses {
		uses = append(uses, fmt.Sprintln(use.Sequence, use.Decision, use.GetRequiredScope(), use.ClientIp, use.Count))
	}
	return uses
}

func TestJournalAddsUpAndSendsUntilConfirmed(t *testing.T) {
	s := primed()
	for range 3 {
		s.ask("traces:read", "10.1.2.3")
	}
	s.ask("metrics:read", "")
	first := s.request(false)
	same(t, usesOf(first), []string{
		"1 DECISION_VALID traces:read 10.1.2.3 3\n", "2 DECISION_INSUFFICIENT_SCOPE metrics:read  1\n",
	})
	s.ask("traces:read", "10.1.2.3")
	same(t, len(s.request(false).Uses), 3)
	s.confirm(first.Uses)
	same(t, usesOf(s.request(false)), []string{"3 DECISION_VALID traces:read 10.1.2.3 1\n"})
	same(t, usesOf(s.request(true)), []string{"3 DECISION_VALID traces:read 10.1.2.3 1\n"})
	same(t, s.ask("traces:read", "10.1.2.3"), "ask")
}

func TestJournalSplitsAtTheHourAndIsBounded(t *testing.T) {
	s := newScene()
	s.clock.advance(time.Hour - 50*time.Millisecond)
	s.sync(nil)
	s.fill(localKey, "k", nil)
	s.ask("traces:read", "")
	s.clock.advance(100 * time.Millisecond)
	s.ask("traces:read", "")
	same(t, len(s.request(false).Uses), 2)
	for i := range maxUses - 2 {
		same(t, s.ask("traces:read", fmt.Sprintf("10.0.%d.%d", i/250, i%250)), Valid)
	}
	same(t, s.ask("traces:read", "11.0.0.1"), "ask")
	s.sync(nil)
	same(t, s.ask("traces:read", "11.0.0.1"), Valid)
}

func TestSyncWaitsLongWhereAnotherTryIsHopeless(t *testing.T) {
	s := primed()
	s.ask("traces:read", "")
	var code codes.Code
	sync := &keySync{local: s.localKeys, deadline: time.Second, send: func(context.Context, *apikeyv1.SyncKeysRequest) (*apikeyv1.SyncKeysResponse, *NoDecision) {
		return nil, &NoDecision{Code: code}
	}}
	for code = range codes.Code(17) {
		hopeless := code == codes.Unauthenticated || code == codes.PermissionDenied || code == codes.FailedPrecondition || code == codes.Unimplemented
		if wait := sync.once(false); (wait >= 45*time.Second) != hopeless {
			t.Errorf("%s: %s", code, wait)
		}
		same(t, len(s.request(false).Uses) == 0, code >= codes.InvalidArgument)
	}
}

// BenchmarkLocalDecision is the cost of one decision without a server.
func BenchmarkLocalDecision(b *testing.B) {
	local := newLocalKeys(DefaultLocalKeys, systemClock{start: time.Now()}, func(string) {})
	clock := local.clock
	local.apply(local.request(false), &apikeyv1.SyncKeysResponse{
		Epoch: "e", Revision: 5, GrantId: "g", Lease: durationpb.New(time.Hour), ServerTime: timestamppb.New(clock.now()), LockedAddressesComplete: true,
	}, clock.now(), clock.monotonic())
	questions := make([]Question, 1000)
	for i := range questions {
		key := fmt.Sprintf("audit_v1_%022d", i)
		questions[i] = Question{Key: Secret(key), Scope: "traces:read", ClientIP: "10.1.2.3"}
		local.keep(key, &apikeyv1.ValidateKeyResponse{
			Decision: apikeyv1.Decision_DECISION_VALID, Valid: true, KeyId: fmt.Sprint("k", i),
			Facts: &apikeyv1.KeyFacts{Epoch: "e", Scopes: []string{"traces:*"}, SecretSlot: apikeyv1.SecretSlot_SECRET_SLOT_CURRENT},
		}, local.generation)
	}
	b.ResetTimer()
	for i := 0; i < b.N; i++ {
		if verdict, decided := local.decide(questions[i%900]); !decided || !verdict.OK() {
			b.Fatal("not decided")
		}
	}
}
