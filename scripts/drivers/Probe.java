// Connects with JDBC: a case a line on standard input (see cases.ts), what came of it on standard output.

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.lang.reflect.Field;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.util.Properties;
import java.util.logging.LogManager;
import javax.net.ssl.SSLSocket;
import org.postgresql.core.PGStream;
import org.postgresql.core.QueryExecutorBase;
import org.postgresql.jdbc.PgConnection;
import org.postgresql.util.DriverInfo;

public class Probe {
	public static void main(String[] arguments) throws Exception {
		System.out.println("version\t" + DriverInfo.DRIVER_FULL_NAME);
		// Its complaints come as exceptions, too.
		LogManager.getLogManager().reset();
		BufferedReader lines = new BufferedReader(new InputStreamReader(System.in));
		for (String line = lines.readLine(); line != null; line = lines.readLine()) {
			String[] words = line.split("\t");
			String said;
			try {
				said = probe(words);
			} catch (Exception error) {
				said = (error.getMessage() + (error.getCause() == null ? "" : ": " + error.getCause().getMessage()));
			}
			System.out.println(words[0] + "\t" + said.trim().replaceAll("\\s+", " "));
		}
	}

	static String probe(String[] words) throws Exception {
		Properties properties = new Properties();
		for (int i = 1; i < words.length; i++) {
			String[] pair = words[i].split("=", 2);
			properties.setProperty(pair[0], pair[1]);
		}
		String url = "jdbc:postgresql://" + properties.remove("host") + ":" + properties.remove("port") + "/"
			+ properties.remove("dbname");
		properties.setProperty("loginTimeout", "10");
		try (Connection connection = DriverManager.getConnection(url, properties);
				PreparedStatement statement = connection.prepareStatement("SELECT repeat('x', ?)")) {
			statement.setInt(1, 300000);
			ResultSet rows = statement.executeQuery();
			rows.next();
			if (!rows.getString(1).equals("x".repeat(300000))) throw new Exception("another text came");
			// Nothing public says it.
			Field stream = QueryExecutorBase.class.getDeclaredField("pgStream");
			stream.setAccessible(true);
			PGStream socket = (PGStream) stream.get(connection.unwrap(PgConnection.class).getQueryExecutor());
			return socket.getSocket() instanceof SSLSocket ? "encrypted" : "plain";
		}
	}
}
