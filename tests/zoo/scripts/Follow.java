import java.io.FileInputStream;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.net.http.WebSocket;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.KeyStore;
import java.security.cert.CertificateFactory;
import java.time.Duration;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CompletionStage;
import java.util.regex.Pattern;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManagerFactory;

/**
 * A list, then a watch over WebSocket from its version, as fabric8's informers do it, with the JDK's
 * own clients. Once a second it prints the ConfigMap greeting as it has followed it, and as the API
 * server answers. Only the first certificate of ca.crt is trusted, as by many Java programs.
 */
public class Follow {
    static final Path ACCOUNT = Path.of("/var/run/secrets/kubernetes.io/serviceaccount");
    static final Pattern VALUE = Pattern.compile("\"data\":\\{\"value\":\"([^\"]*)\"");
    static final Pattern VERSION = Pattern.compile("\"metadata\":\\{\"resourceVersion\":\"(\\d+)\"");

    final String authority = System.getenv("KUBERNETES_SERVICE_HOST") + ":" + System.getenv("KUBERNETES_SERVICE_PORT");
    final String path;
    final HttpClient client;
    volatile String followed;

    public static void main(String[] args) throws Exception {
        Follow follow = new Follow();
        Thread follower = new Thread(follow::follow);
        follower.setDaemon(true);
        follower.start();
        while (true) {
            Thread.sleep(1000);
            try {
                String asked = find(VALUE, follow.get("/greeting"));
                System.out.println("followed=" + follow.followed + " asked=" + asked);
            } catch (IOException e) {
                System.out.println("ask: " + e);
            }
        }
    }

    Follow() throws Exception {
        path = "/api/v1/namespaces/" + Files.readString(ACCOUNT.resolve("namespace")).strip() + "/configmaps";
        KeyStore trusted = KeyStore.getInstance(KeyStore.getDefaultType());
        trusted.load(null);
        try (FileInputStream in = new FileInputStream(ACCOUNT.resolve("ca.crt").toFile())) {
            trusted.setCertificateEntry("ca", CertificateFactory.getInstance("X.509").generateCertificate(in));
        }
        TrustManagerFactory managers = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        managers.init(trusted);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(null, managers.getTrustManagers(), null);
        client = HttpClient.newBuilder().sslContext(context).connectTimeout(Duration.ofSeconds(10)).build();
    }

    static String authorization() throws IOException {
        return "Bearer " + Files.readString(ACCOUNT.resolve("token")).strip();
    }

    static String find(Pattern pattern, String text) throws IOException {
        var found = pattern.matcher(text);
        if (!found.find()) {
            throw new IOException("no " + pattern + " in " + text);
        }
        return found.group(1);
    }

    String get(String resource) throws IOException, InterruptedException {
        HttpRequest request = HttpRequest.newBuilder(URI.create("https://" + authority + path + resource))
            .header("Authorization", authorization()).timeout(Duration.ofSeconds(10)).build();
        HttpResponse<String> response = client.send(request, HttpResponse.BodyHandlers.ofString());
        if (response.statusCode() != 200) {
            throw new IOException(response.statusCode() + ": " + response.body());
        }
        return response.body();
    }

    void follow() {
        String query = "?fieldSelector=metadata.name%3Dgreeting";
        while (true) {
            try {
                String list = get(query);
                followed = find(VALUE, list);
                Events events = new Events();
                client.newWebSocketBuilder().header("Authorization", authorization())
                    .header("Origin", "https://" + authority)
                    .buildAsync(URI.create("wss://" + authority + path + query + "&watch=true&resourceVersion="
                        + find(VERSION, list)), events).join();
                System.out.println("watch: " + events.ended.join());
            } catch (IOException | RuntimeException e) {
                System.out.println("follow: " + e);
            } catch (InterruptedException e) {
                return;
            }
            try {
                Thread.sleep(1000);
            } catch (InterruptedException e) {
                return;
            }
        }
    }

    class Events implements WebSocket.Listener {
        final CompletableFuture<String> ended = new CompletableFuture<>();
        private final StringBuilder message = new StringBuilder();

        @Override
        public CompletionStage<?> onText(WebSocket socket, CharSequence part, boolean last) {
            message.append(part);
            if (last) {
                take(socket, message.toString());
                message.setLength(0);
            }
            socket.request(1);
            return null;
        }

        private void take(WebSocket socket, String event) {
            if (event.startsWith("{\"type\":\"ERROR\"")) {
                ended.complete(event);
                socket.abort();
                return;
            }
            var found = VALUE.matcher(event);
            if (found.find()) {
                followed = found.group(1);
            }
        }

        @Override
        public CompletionStage<?> onClose(WebSocket socket, int code, String reason) {
            ended.complete("closed with " + code + " " + reason);
            return null;
        }

        @Override
        public void onError(WebSocket socket, Throwable error) {
            ended.complete(error.toString());
        }
    }
}
