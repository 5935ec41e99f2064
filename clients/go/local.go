package apikeyd

import (
	"container/list"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	apikeyv1 "example.com/apikeyd/clients/go/apikey/v1"
)

const (
	// DefaultLocalKeys is how many secrets a guard keeps, as hashes.
	DefaultLocalKeys = 10_000
	// Beyond, the clocks of guard and server do not agree on when a key ends.
	maxSkew = 5 * time.Second
	// Uses that are not confirmed yet; beyond, the server is asked for each decision.
	maxUses = 1000
	maxUse  = 1_000_000_000
)

// clock is the time of a lease: the wall clock, and a monotonic one since any start.
type clock interface {
	now() time.Time
	monotonic() time.Duration
}

type systemClock struct{ start time.Time }

// Round strips the monotonic reading.
func (systemClock) now() time.Time             { return time.Now().Round(0) }
func (c systemClock) monotonic() time.Duration { return time.Since(c.start) }

// localFacts are the facts of a key, ready for decisions by the server's clock.
type localFacts struct {
	hash       [sha256.Size]byte
	answer     *apikeyv1.ValidateKeyResponse
	allowlist  []netip.Prefix
	expireTime time.Time
	secretEnd  time.Time
	asked      map[string]*askedScope
}

// askedScope is what is known of one scope of a key: its grant, the verdict that admits, and the uses of addresses.
type askedScope struct {
	granted  bool
	admitted Verdict
	uses     map[string]*openUse
}

// openUse counts equal decisions within an hour until they are sent.
type openUse struct {
	keyID, scope, clientIP string
	decision               apikeyv1.Decision
	first, last            time.Time
	count                  int64
	open                   bool
}

// localKeys keeps facts and the lease under which a guard decides by them, without a server. A lease runs from the start
// of the call that got it, by the larger of the two clocks; a clock that was set back has ended it.
type localKeys struct {
	capacity int
	clock    clock
	warn     func(string)
	guardID  string

	mu         sync.Mutex
	kept       map[[sha256.Size]byte]*list.Element
	recent     *list.List
	byKey      map[string]map[[sha256.Size]byte]bool
	epoch      string
	cursor     int64
	grantID    string
	generation uint64
	start      time.Time
	startMono  time.Duration
	lease      time.Duration
	serverTime time.Time
	locked     map[string]bool
	complete   bool
	closing    bool
	toldSkew   bool

	uses     []*openUse
	sent     []*apikeyv1.LocalUse
	sequence int64
}

func newLocalKeys(capacity int, clock clock, warn func(string)) *localKeys {
	random := make([]byte, 16)
	// It never fails.
	_, _ = rand.Read(random)
	return &localKeys{
		capacity: capacity, clock: clock, warn: warn, guardID: base64.RawURLEncoding.EncodeToString(random),
		kept: map[[sha256.Size]byte]*list.Element{}, recent: list.New(), byKey: map[string]map[[sha256.Size]byte]bool{},
	}
}

// elapsed since the start of the call that got the lease; false for a clock that was set back.
func (l *localKeys) elapsed() (time.Duration, bool) {
	monotonic, wall := l.clock.monotonic()-l.startMono, l.clock.now().Sub(l.start)
	return max(monotonic, wall), monotonic >= 0 && wall >= 0
}

func (l *localKeys) holds() bool {
	elapsed, forward := l.elapsed()
	return forward && elapsed < l.lease
}

// moment returns the cursor and the generation of a question that is about to be sent; false without a lease.
func (l *localKeys) moment() (cursor int64, generation uint64, holds bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cursor, l.generation, l.holds()
}

// decide returns the verdict and notes it in the journal; false when the server must be asked.
func (l *localKeys) decide(question Question) (Verdict, bool) {
	hash := sha256.Sum256([]byte(question.Key))
	l.mu.Lock()
	defer l.mu.Unlock()
	elapsed, forward := l.elapsed()
	if !forward || elapsed >= l.lease || l.closing || len(l.uses)+len(l.sent) >= maxUses || question.DryRun {
		return Verdict{}, false
	}
	found := l.kept[hash]
	if found == nil || l.mayBeLocked(question.ClientIP) {
		return Verdict{}, false
	}
	l.recent.MoveToBack(found)
	facts := found.Value.(*localFacts)
	asked := facts.asked[question.Scope]
	if asked == nil {
		if question.Scope != "" && !isScope(question.Scope) {
			return Verdict{}, false
		}
		asked = facts.ask(question.Scope)
	}
	now := l.serverTime.Add(elapsed)
	decision := facts.decide(asked.granted, question.ClientIP, now)
	verdict := asked.admitted
	var before *openUse
	if decision == apikeyv1.Decision_DECISION_VALID {
		before = asked.uses[question.ClientIP]
	} else {
		verdict = facts.verdict(decision, verdict.MatchedScope)
	}
	// The server refuses a question with an odd address, and would refuse the report of its decision with all others.
	if before == nil && question.ClientIP != "" && !isAddress(question.ClientIP) {
		return Verdict{}, false
	}
	use := l.note(before, facts.answer.KeyId, question, decision, now)
	if use != before && decision == apikeyv1.Decision_DECISION_VALID {
		if len(asked.uses) >= maxUses {
			clear(asked.uses)
		}
		asked.uses[question.ClientIP] = use
	}
	// The process may have been stopped in between.
	if !l.holds() {
		use.count--
		return Verdict{}, false
	}
	return verdict, true
}

func (l *localKeys) note(use *openUse, keyID string, q Question, decision apikeyv1.Decision, now time.Time) *openUse {
	if use != nil && use.open && use.count < maxUse && use.first.Truncate(time.Hour).Equal(now.Truncate(time.Hour)) {
		use.count++
		if now.After(use.last) {
			use.last = now
		}
		return use
	}
	use = &openUse{keyID: keyID, scope: q.Scope, clientIP: q.ClientIP, decision: decision, first: now, last: now, count: 1, open: true}
	l.uses = append(l.uses, use)
	return use
}

func (l *localKeys) mayBeLocked(clientIP string) bool {
	if clientIP == "" {
		return false
	}
	return !l.complete || (len(l.locked) > 0 && l.locked[lockedForm(clientIP)])
}

func isAddress(text string) bool {
	address, err := netip.ParseAddr(text)
	return err == nil && address.Zone() == ""
}

// lockedForm is how the server names a locked address: IPv4 as it is, IPv6 by its /64.
func lockedForm(text string) string {
	address, err := netip.ParseAddr(text)
	if err != nil {
		return text
	}
	address = address.Unmap().WithZone("")
	if address.Is4() {
		return address.String()
	}
	return netip.PrefixFrom(address, 64).Masked().String()
}

// keep the facts of an answer to a question that was sent in this generation.
func (l *localKeys) keep(key string, answer *apikeyv1.ValidateKeyResponse, sent uint64) {
	facts := factsOf(key, answer)
	l.mu.Lock()
	defer l.mu.Unlock()
	if facts == nil || sent != l.generation || !l.holds() || answer.Facts.Epoch != l.epoch {
		return
	}
	l.drop(facts.hash)
	if l.recent.Len() >= l.capacity {
		l.drop(l.recent.Front().Value.(*localFacts).hash)
	}
	l.kept[facts.hash] = l.recent.PushBack(facts)
	if l.byKey[answer.KeyId] == nil {
		l.byKey[answer.KeyId] = map[[sha256.Size]byte]bool{}
	}
	l.byKey[answer.KeyId][facts.hash] = true
}

func (l *localKeys) drop(hash [sha256.Size]byte) {
	found := l.kept[hash]
	if found == nil {
		return
	}
	keyID := found.Value.(*localFacts).answer.KeyId
	delete(l.kept, hash)
	l.recent.Remove(found)
	delete(l.byKey[keyID], hash)
	if len(l.byKey[keyID]) == 0 {
		delete(l.byKey, keyID)
	}
}

// request is the next one; with closing no decision is made any more.
func (l *localKeys) request(closing bool) *apikeyv1.SyncKeysRequest {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closing = l.closing || closing
	for _, use := range l.uses {
		use.open = false
		if use.count > 0 {
			l.sent = append(l.sent, l.message(use))
		}
	}
	l.uses = nil
	return &apikeyv1.SyncKeysRequest{
		GuardId: l.guardID, Epoch: l.epoch, Revision: l.cursor, LastGrantId: l.grantID,
		Uses: slices.Clone(l.sent), Closing: closing,
	}
}

func (l *localKeys) message(use *openUse) *apikeyv1.LocalUse {
	l.sequence++
	message := &apikeyv1.LocalUse{
		Sequence: l.sequence, KeyId: use.keyID, Decision: use.decision, ClientIp: use.clientIP, Count: use.count,
		FirstTime: timestamppb.New(use.first), LastTime: timestamppb.New(use.last),
	}
	if use.scope != "" {
		message.RequiredScope = &use.scope
	}
	return message
}

// confirm uses: the server has made them durable, or never will.
func (l *localKeys) confirm(uses []*apikeyv1.LocalUse) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent = l.sent[len(uses):]
}

// apply an answer in one step; start and startMono are from before the request was sent.
func (l *localKeys) apply(request *apikeyv1.SyncKeysRequest, answer *apikeyv1.SyncKeysResponse, start time.Time, startMono time.Duration) {
	l.confirm(request.Uses)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.generation++
	if answer.Reset_ || answer.Epoch != l.epoch {
		clear(l.kept)
		clear(l.byKey)
		l.recent.Init()
		l.cursor = answer.Revision
	} else {
		for _, change := range answer.Changes {
			for hash := range l.byKey[change.KeyId] {
				l.drop(hash)
			}
		}
		l.cursor = max(l.cursor, answer.Revision)
	}
	l.epoch, l.grantID = answer.Epoch, answer.GrantId
	l.start, l.startMono, l.serverTime = start, startMono, answer.ServerTime.AsTime()
	l.lease = 0
	if l.clocksAgree() {
		l.lease = answer.Lease.AsDuration()
	}
	l.locked = map[string]bool{}
	for _, address := range answer.LockedAddresses {
		l.locked[address] = true
	}
	l.complete = answer.LockedAddressesComplete
}

// clocksAgree: the server's time was read after the request was sent.
func (l *localKeys) clocksAgree() bool {
	agree := l.serverTime.Sub(l.start) > -maxSkew && l.serverTime.Sub(l.clock.now()) < maxSkew
	if !agree && !l.toldSkew {
		l.warn("the clocks of the guard and of apikeyd are more than 5 s apart: no local decisions")
	}
	l.toldSkew = !agree
	return agree
}

// factsOf returns nil for an answer without facts.
func factsOf(key string, answer *apikeyv1.ValidateKeyResponse) *localFacts {
	given := answer.GetFacts()
	if given == nil {
		return nil
	}
	never := time.Unix(1<<40, 0)
	facts := &localFacts{
		hash: sha256.Sum256([]byte(key)), answer: answer, expireTime: never, secretEnd: never, asked: map[string]*askedScope{},
	}
	for _, cidr := range given.IpAllowlist {
		prefix, err := netip.ParsePrefix(cidr)
		if err != nil {
			return nil
		}
		facts.allowlist = append(facts.allowlist, prefix)
	}
	switch {
	case given.Expired:
		facts.expireTime = time.Unix(0, 0)
	case given.ExpireTime != nil:
		facts.expireTime = given.ExpireTime.AsTime()
	}
	if given.SecretSlot == apikeyv1.SecretSlot_SECRET_SLOT_PREVIOUS {
		facts.secretEnd = given.PreviousSecretExpireTime.AsTime()
	}
	return facts
}

// decide by the rules of the server in their order; now is by the server's clock.
func (f *localFacts) decide(granted bool, clientIP string, now time.Time) apikeyv1.Decision {
	switch {
	case !now.Before(f.expireTime):
		return apikeyv1.Decision_DECISION_EXPIRED
	case !now.Before(f.secretEnd):
		return apikeyv1.Decision_DECISION_ROTATED
	case len(f.allowlist) > 0 && !f.allows(clientIP):
		return apikeyv1.Decision_DECISION_IP_NOT_ALLOWED
	case !granted:
		return apikeyv1.Decision_DECISION_INSUFFICIENT_SCOPE
	}
	return apikeyv1.Decision_DECISION_VALID
}

func (f *localFacts) allows(clientIP string) bool {
	address, err := netip.ParseAddr(clientIP)
	if err != nil {
		return false
	}
	address = address.Unmap().WithZone("")
	return slices.ContainsFunc(f.allowlist, func(prefix netip.Prefix) bool { return prefix.Contains(address) })
}

func (f *localFacts) ask(scope string) *askedScope {
	grant, granted := grantFor(f.answer.Facts.Scopes, scope)
	asked := &askedScope{granted: granted, uses: map[string]*openUse{}}
	asked.admitted = f.verdict(apikeyv1.Decision_DECISION_VALID, grant)
	f.asked[scope] = asked
	return asked
}

func (f *localFacts) verdict(decision apikeyv1.Decision, grant string) Verdict {
	answer := proto.CloneOf(f.answer)
	answer.Decision, answer.Valid = decision, decision == apikeyv1.Decision_DECISION_VALID
	answer.MatchedScope, answer.Reasons = grant, nil
	if !answer.Valid {
		answer.Reasons = []apikeyv1.Decision{decision}
	}
	verdict, _ := verdictOf(answer)
	verdict.Local = true
	return verdict
}

// grantFor returns the first grant that covers the scope; "" covers no scope asked for.
func grantFor(grants []string, scope string) (string, bool) {
	if scope == "" {
		return "", true
	}
	control := func(text string) bool { return text == "apikeys" || strings.HasPrefix(text, "apikeys:") }
	for _, grant := range grants {
		if (!control(scope) || control(grant)) && covers(grant, scope) {
			return grant, true
		}
	}
	return "", false
}

func covers(grant, scope string) bool {
	if grant == scope || grant == "*" {
		return true
	}
	have, want := strings.Split(grant, ":"), strings.Split(scope, ":")
	if len(have) != len(want) {
		return false
	}
	for i, part := range have {
		if part != "*" && part != want[i] {
			return false
		}
	}
	return true
}
