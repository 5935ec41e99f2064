import apikey.v1.ApiKeyAuthGrpc;
import apikey.v1.ApiKeyAuthGrpc.ApiKeyAuthBlockingStub;
import apikey.v1.Auth.Decision;
import apikey.v1.Auth.ValidateKeyRequest;
import apikey.v1.Auth.ValidateKeyResponse;
import com.google.protobuf.Any;
import com.google.protobuf.Duration;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.rpc.RetryInfo;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.MetadataUtils;
import java.io.IOException;
import java.net.InetSocketAddress;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

/** A backend that admits requests whose key is valid for the scope traces:read. */
public final class Guard {
  private static final long DEADLINE_MS = 500;

  // UNAVAILABLE means that no decision was made, and only a decision consumes cost: a retry is safe.
  private static final Map<String, ?> RETRIES =
      Map.of(
          "methodConfig",
          List.of(
              Map.of(
                  "name",
                  List.of(Map.of("service", "apikey.v1.ApiKeyAuth", "method", "ValidateKey")),
                  "retryPolicy",
                  Map.of(
                      "maxAttempts", 3.0,
                      "initialBackoff", "0.05s",
                      "maxBackoff", "0.2s",
                      "backoffMultiplier", 2.0,
                      "retryableStatusCodes", List.of("UNAVAILABLE")))));

  private final ApiKeyAuthBlockingStub apikeyd;

  private Guard(ApiKeyAuthBlockingStub apikeyd) {
    this.apikeyd = apikeyd;
  }

  private void handle(HttpExchange exchange) throws IOException {
    String[] credential = String.valueOf(exchange.getRequestHeaders().getFirst("Authorization")).split(" ", 2);
    if (credential.length < 2 || !credential[0].equalsIgnoreCase("bearer") || credential[1].isEmpty()) {
      refuse(exchange, 401, "send a key");
      return;
    }
    ValidateKeyResponse answer;
    try {
      answer =
          apikeyd
              .withDeadlineAfter(DEADLINE_MS, TimeUnit.MILLISECONDS)
              .validateKey(
                  ValidateKeyRequest.newBuilder()
                      .setKey(credential[1])
                      .setRequiredScope("traces:read")
                      .setClientIp(exchange.getRemoteAddress().getAddress().getHostAddress())
                      .build());
    } catch (StatusRuntimeException error) {
      for (Any detail : StatusProto.fromThrowable(error).getDetailsList()) {
        retryAfter(exchange, detail);
      }
      refuse(exchange, 503, "no decision");
      return;
    }
    String decision = answer.getDecision().name().replaceFirst("^DECISION_", "");
    if (answer.getValid()) {
      if (answer.getRateLimitsCount() > 0) {
        long left = answer.getRateLimits(0).getRemaining();
        exchange.getResponseHeaders().set("RateLimit-Remaining", Long.toUnsignedString(left));
      }
      send(exchange, 200, "{\"traces\":[]}");
    } else if (answer.getDecision() == Decision.DECISION_MALFORMED
        || answer.getDecision() == Decision.DECISION_NOT_FOUND) {
      refuse(exchange, 401, decision);
    } else if (answer.getDecision() == Decision.DECISION_RATE_LIMITED
        || answer.getDecision() == Decision.DECISION_LOCKED_OUT) {
      retryAfter(exchange, answer.getRetryAfter());
      refuse(exchange, 429, decision);
    } else {
      refuse(exchange, 403, decision);
    }
  }

  private static void retryAfter(HttpExchange exchange, Any detail) throws InvalidProtocolBufferException {
    if (detail.is(RetryInfo.class)) {
      retryAfter(exchange, detail.unpack(RetryInfo.class).getRetryDelay());
    }
  }

  private static void retryAfter(HttpExchange exchange, Duration wait) {
    long seconds = wait.getSeconds() + (wait.getNanos() > 0 ? 1 : 0);
    exchange.getResponseHeaders().set("Retry-After", Long.toString(seconds));
  }

  private static void refuse(HttpExchange exchange, int status, String text) throws IOException {
    send(exchange, status, "{\"error\":\"" + text + "\"}");
  }

  private static void send(HttpExchange exchange, int status, String json) throws IOException {
    byte[] body = json.getBytes(StandardCharsets.UTF_8);
    exchange.getResponseHeaders().set("Content-Type", "application/json");
    exchange.sendResponseHeaders(status, body.length);
    exchange.getResponseBody().write(body);
    exchange.close();
  }

  private static String setting(String name, String otherwise) {
    String value = System.getenv(name);
    return value == null || value.isEmpty() ? otherwise : value;
  }

  public static void main(String[] args) throws IOException {
    String ownKey = Files.readString(Path.of(System.getenv("APIKEYD_KEY_FILE"))).trim();
    Metadata credential = new Metadata();
    credential.put(Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER), "Bearer " + ownKey);
    var channel =
        ManagedChannelBuilder.forTarget(setting("APIKEYD_ADDRESS", "127.0.0.1:50051"))
            .usePlaintext()
            .defaultServiceConfig(RETRIES)
            .enableRetry()
            .intercept(MetadataUtils.newAttachHeadersInterceptor(credential))
            .build();
    Guard guard = new Guard(ApiKeyAuthGrpc.newBlockingStub(channel));
    int port = Integer.parseInt(setting("PORT", "8000"));
    HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 0);
    server.createContext("/", guard::handle);
    server.setExecutor(Executors.newFixedThreadPool(16));
    server.start();
    System.out.println("listening on " + server.getAddress().getPort());
  }
}
