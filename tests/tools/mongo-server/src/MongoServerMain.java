// Serves MongoDB's wire protocol from one file; what it acknowledged survives SIGKILL.
//
// Wire version 13 (5.0.0): CRUD, unique indexes, guarded updates, findAndModify,
// upsert, cursors and aggregation. No transactions, no change streams, no
// pipeline updates. Test tool: it is not the real MongoDB, whose own semantics
// the suites must also pass.

import de.bwaldvogel.mongo.MongoServer;
import de.bwaldvogel.mongo.MongoVersion;
import java.net.InetSocketAddress;
import java.util.List;
import org.h2.mvstore.MVStore;

public final class MongoServerMain {
    private MongoServerMain() {}

    /** The drivers of today ask for wire version 9 or later; 13 is that of 5.0. */
    private static final MongoVersion VERSION = new MongoVersion() {
        @Override
        public List<Integer> getVersionArray() {
            return List.of(5, 0, 0);
        }

        @Override
        public int getWireVersion() {
            return 13;
        }
    };

    public static void main(String[] args) {
        if (args.length != 3) {
            System.err.println("usage: MongoServerMain HOST PORT FILE");
            System.exit(2);
        }
        // Without its auto-commit the store writes in the thread that commits,
        // so that a commit that has returned is in the file.
        MVStore store = new MVStore.Builder().fileName(args[2]).autoCommitDisabled().open();
        store.setRetentionTime(0);
        MongoServer server = new MongoServer(new DurableBackend(store).version(VERSION));
        Runtime.getRuntime().addShutdownHook(new Thread(server::shutdownNow, "shutdown"));
        server.bind(new InetSocketAddress(args[0], Integer.parseInt(args[1])));
    }
}
