package apikeyd

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
)

// Rule is the requirement of a handler or a method. Exactly one of Scope, AnyKey and Open is set.
type Rule struct {
	// Scope that the key must cover, such as "traces:read".
	Scope string
	// AnyKey accepts every valid key.
	AnyKey bool
	// Open admits every request without asking apikeyd.
	Open bool
	// Cost of a request, consumed from each limit of the key; 0 means 1, at most 1 000 000 000.
	Cost uint64
	// TrustedHops is how many of your proxies append to x-forwarded-for; 0: the peer is the client.
	// At most 16.
	TrustedHops int
	// KeyHeaders may hold the key; the first one present counts. nil means authorization and x-api-key. authorization
	// counts only with the scheme Bearer.
	KeyHeaders []string
}

var (
	scopeShape  = regexp.MustCompile(`^[A-Za-z0-9._-]+(:[A-Za-z0-9._-]+)*$`)
	headerShape = regexp.MustCompile("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")
	bearer      = regexp.MustCompile(`(?is)^bearer(?: +(.*))?$`)
	printable   = regexp.MustCompile(`^[\x20-\x7e]+$`)
	hasPortV4   = regexp.MustCompile(`^(\d+\.\d+\.\d+\.\d+):\d{1,5}$`)
	inBrackets  = regexp.MustCompile(`^\[([^\[\]]+)\](?::\d{1,5})?$`)
)

// Check returns an error for an invalid rule. HTTP and the interceptors panic with it, as http.Handle does with a bad
// pattern.
func (r Rule) Check() error {
	chosen := map[bool]int{}
	for _, is := range []bool{r.Scope != "", r.AnyKey, r.Open} {
		chosen[is]++
	}
	switch {
	case chosen[true] != 1:
		return errors.New("apikeyd: a Rule has exactly one of Scope, AnyKey and Open")
	case r.Scope != "" && !isScope(r.Scope):
		return fmt.Errorf("apikeyd: Scope %q is not made of letters, digits, `.`, `_` and `-` with `:` between", r.Scope)
	case r.Cost > 1_000_000_000:
		return errors.New("apikeyd: Cost is more than 1 000 000 000")
	case r.TrustedHops < 0 || r.TrustedHops > 16:
		return errors.New("apikeyd: TrustedHops is not between 0 and 16")
	case r.KeyHeaders != nil && len(r.KeyHeaders) == 0:
		return errors.New("apikeyd: KeyHeaders is empty")
	}
	for _, name := range r.KeyHeaders {
		if !headerShape.MatchString(name) {
			return fmt.Errorf("apikeyd: %q is no name of a header", name)
		}
	}
	return nil
}

// mustHold returns the rule with its defaults. It panics when the rule is invalid.
func (r Rule) mustHold() Rule {
	if err := r.Check(); err != nil {
		panic(err)
	}
	if r.KeyHeaders == nil {
		r.KeyHeaders = []string{"authorization", "x-api-key"}
	}
	return r
}

// headers returns every value of a header; none when it is absent.
type headers func(name string) []string

// admit decides about a request.
func (g *Guard) admit(ctx context.Context, rule Rule, header headers, peer string) (Verdict, reply) {
	key, found := rule.keyIn(header)
	if !found {
		g.options.Observe(Observation{Outcome: "NO_KEY"})
		return Verdict{}, noKey
	}
	ip, err := rule.clientIP(header, peer)
	if err != nil {
		g.observe(Verdict{}, err, 0, time.Now())
		return Verdict{}, replyToNone(err)
	}
	requestID := strings.Join(header("x-request-id"), ", ")
	if len(requestID) > 1024 || !printable.MatchString(requestID) {
		requestID = ""
	}
	verdict, failure := g.Validate(ctx, Question{
		Key: key, Scope: rule.Scope, ClientIP: ip, UserAgent: strings.Join(header("user-agent"), ", "),
		RequestID: requestID, Cost: rule.Cost,
	})
	var none *NoDecision
	if errors.As(failure, &none) {
		return Verdict{}, replyToNone(none)
	}
	return verdict, replyTo(verdict, rule.Scope, time.Now())
}

func (r Rule) keyIn(header headers) (Secret, bool) {
	for _, name := range r.KeyHeaders {
		values := header(name)
		if len(values) == 0 {
			continue
		}
		held := strings.Join(values, ", ")
		if !strings.EqualFold(name, "authorization") {
			return Secret(held), true
		}
		if match := bearer.FindStringSubmatch(held); match != nil {
			return Secret(match[1]), true
		}
	}
	return "", false
}

// clientIP takes the address from a place that the client cannot forge.
func (r Rule) clientIP(header headers, peer string) (string, *NoDecision) {
	if r.TrustedHops == 0 {
		return addressIn(peer), nil
	}
	entries := strings.Split(strings.Join(header("x-forwarded-for"), ","), ",")
	if at := len(entries) - r.TrustedHops; at >= 0 {
		if ip := addressIn(entries[at]); ip != "" {
			return ip, nil
		}
	}
	return "", &NoDecision{Misconfigured: true, Code: codes.Internal, Reason: "TRUSTED_HOPS"}
}

// isScope says whether a request may require the scope.
func isScope(text string) bool { return len(text) <= 1024 && scopeShape.MatchString(text) }

// addressIn reads an address as proxies write it, with or without port and zone; "" for anything else.
func addressIn(text string) string {
	text = strings.TrimSpace(text)
	if match := hasPortV4.FindStringSubmatch(text); match != nil {
		text = match[1]
	} else if match := inBrackets.FindStringSubmatch(text); match != nil {
		text = match[1]
	}
	address, err := netip.ParseAddr(text)
	if err != nil {
		return ""
	}
	return address.Unmap().WithZone("").String()
}
